"""The translator page with gunicorn, RabbitMQ and a worker that returns every text as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser.conftest import LIMIT
from tests.browser.translating import answer_with, is_request, output, text_of, translate

pytestmark = [pytest.mark.browser, pytest.mark.broker]

HISTORY = """
window.history_ = [];
new MutationObserver(() => history_.push(document.getElementById("output").textContent))
  .observe(document.getElementById("output"), { childList: true });
"""

Open = Callable[..., Page]


def test_a_text_is_translated_as_it_is_typed(page: Page) -> None:
    page.keyboard.type("Bonjour.  Ça va ?\n\n- <b>😀")  # the page focuses its text field when it opens
    expect(output(page)).to_have_text("Bonjour.  Ça va ?\n\n- <b>😀", use_inner_text=True)
    expect(output(page)).to_have_attribute("lang", "en")
    expect(page.locator("#outcome")).to_have_text("Translated.")
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#length")).to_have_text(f"25 / {LIMIT}")


def test_a_pause_in_typing_sends_the_text_once(page: Page) -> None:
    page.clock.install()
    page.clock.pause_at("2100-01-01")
    texts = answer_with(page, 200, "{}")
    for typed in ("U", "n", "."):
        page.keyboard.type(typed)
        page.clock.run_for(200)
    assert texts == []
    with page.expect_response(lambda response: is_request(response.request)):
        page.clock.run_for(200)
    assert texts == ["Un."]


def test_typing_on_ends_the_older_request_and_its_answer_never_shows(page: Page) -> None:
    page.evaluate(HISTORY)
    with page.expect_request(is_request):
        page.fill("#text", "#sleep 0.5")
    expect(page.locator("#progress")).to_be_visible()
    with page.expect_event("requestfailed") as failed:
        page.fill("#text", "Salut.")
    assert text_of(failed.value) == "#sleep 0.5"
    assert "ERR_ABORTED" in failed.value.failure
    expect(output(page)).to_have_text("Salut.")
    page.fill("#text", "#sleep 0.6")  # it takes longer than the first text
    expect(output(page)).to_have_text("#sleep 0.6")
    assert page.evaluate("history_") == ["Salut.", "#sleep 0.6"]


def test_typing_on_frees_the_worker(page: Page, url: str, eventually: Callable[..., None]) -> None:
    def active() -> int:
        answer = requests.post(f"{url}/graphql", json={"query": "{ status { workers { active } } }"}, timeout=10)
        return answer.json()["data"]["status"]["workers"][0]["active"]

    translate(page, "#sleep 9.5")
    eventually(lambda: active() == 1)
    page.fill("#text", "")
    eventually(lambda: active() == 0, timeout=6)


@pytest.mark.parametrize("clipboard", [True, False])
def test_copy_takes_the_translation_and_nothing_else(url: str, open_page: Open, clipboard: bool) -> None:
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    if not clipboard:  # a page over HTTP from another machine has no clipboard
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    expect(page.locator("#copy")).to_be_disabled()
    translate(page, "#unsure")
    expect(output(page).locator("mark")).to_have_text("#unsure")
    page.click("#copy")
    expect(page.locator("#outcome")).to_have_text("Copied.")
    page.fill("#text", "")
    page.locator("#text").press("Control+v")
    expect(page.locator("#text")).to_have_value("#unsure")


def test_clear_leaves_nothing_and_the_cursor_in_place(page: Page) -> None:
    expect(page.locator("#clear")).to_be_disabled()
    translate(page, "Bonjour.")
    expect(output(page)).to_have_text("Bonjour.")
    page.click("#clear")
    expect(output(page)).to_be_empty()
    expect(page.locator("#text")).to_be_focused()
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("#copy")).to_be_disabled()
    expect(page.locator("#clear")).to_be_disabled()


def test_clear_ends_a_request(page: Page) -> None:
    with page.expect_request(is_request):
        translate(page, "#sleep 5")
    with page.expect_event("requestfailed"):
        page.click("#clear")
    expect(page.locator("#progress")).to_be_hidden()


def test_characters_count_as_the_server_counts_them(page: Page) -> None:
    translate(page, "é😀" * (LIMIT // 2))
    expect(page.locator("#length")).to_have_text(f"{LIMIT} / {LIMIT}")
    expect(output(page)).to_have_text("é😀" * (LIMIT // 2))


def test_a_text_over_the_limit_stays_and_is_not_sent(page: Page) -> None:
    page.fill("#text", "Bonjour.")
    expect(output(page)).to_have_text("Bonjour.")
    page.clock.install()
    texts = answer_with(page, 200, "{}")
    page.fill("#text", "é" * (LIMIT + 3))
    expect(page.locator("#outcome")).to_contain_text("3 characters too long")
    expect(page.locator("#text")).to_have_attribute("aria-invalid", "true")
    expect(output(page)).to_have_class("outdated")
    page.locator("#text").press("Control+Enter")
    page.clock.fast_forward(60_000)
    assert texts == []
    page.unroute("**/graphql")
    page.fill("#text", "é" * LIMIT)
    page.locator("#text").press("Control+Enter")
    expect(output(page)).to_have_text("é" * LIMIT)
    expect(output(page)).not_to_have_class("outdated")
    expect(page.locator("#text")).to_have_attribute("aria-invalid", "false")


def test_swap_turns_languages_and_texts_round(page: Page) -> None:
    translate(page, "Bonjour.")
    expect(output(page)).to_have_text("Bonjour.")
    with page.expect_request(is_request) as sent:
        page.click("#swap")
    sent_input = sent.value.post_data_json["variables"]["input"]
    assert (sent_input["source"], sent_input["target"], sent_input["texts"]) == ("en", "fr", ["Bonjour."])
    expect(page.locator("#source option:checked")).to_have_text("English")
    expect(page.locator("#target option:checked")).to_have_text("French")
    expect(output(page)).to_have_attribute("lang", "fr")
    expect(page.locator("#text")).to_have_attribute("lang", "en")


def test_swap_says_why_there_is_no_way_back(page: Page) -> None:
    page.select_option("#target", "de")
    why = "There is no model from German to French."
    swap = page.get_by_role("button", name="Swap the languages")
    expect(swap).to_be_disabled()
    expect(swap).to_have_attribute("title", why)
    expect(swap).to_have_accessible_description(why)
    swap.press("Enter")
    expect(page.locator("#outcome")).to_have_text(why)
    assert (page.input_value("#source"), page.input_value("#target")) == ("fr", "de")


def test_the_languages_are_remembered(page: Page) -> None:
    page.select_option("#target", "de")
    page.reload()
    assert (page.input_value("#source"), page.input_value("#target")) == ("fr", "de")
    assert page.evaluate("Object.entries(localStorage)") == [["tolk.pair", '["fr","de"]']]
    page.evaluate("localStorage.setItem('tolk.pair', 'nonsense')")
    page.reload()
    assert (page.input_value("#source"), page.input_value("#target")) == ("fr", "en")


def test_a_translation_through_another_language_says_so(page: Page, check_access: Callable[[Page], None]) -> None:
    page.select_option("#source", "en")
    page.select_option("#target", "de")
    through = page.locator("#through")
    expect(through).to_be_empty()
    translate(page, "Good morning.")
    expect(through).to_have_text("By way of French: no model translates directly.")
    expect(through).to_have_role("status")
    expect(output(page)).to_have_text("Good morning.")
    expect(output(page)).to_have_attribute("lang", "de")
    check_access(page)
    page.select_option("#target", "fr")
    expect(through).to_be_empty()


@pytest.mark.parametrize(("via", "marks"), [([], 1), (["fr"], 0)])
def test_two_models_may_be_unsure_twice(page: Page, via: list[str], marks: int) -> None:
    sentence = {"text": "Hallo.", "score": -1.5, "flags": []}
    translated = {"requestId": "", "via": via, "translations": [{"text": "Hallo.", "sentences": [sentence]}]}
    answer_with(page, 200, json.dumps({"data": {"translate": translated}}))
    translate(page, "Salut.")
    expect(output(page)).to_contain_text("Hallo.")
    expect(output(page).locator("mark")).to_have_count(marks)


def test_a_clipboard_that_is_refused_is_said(page: Page) -> None:
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new DOMException('', 'Not')) }")
    translate(page, "Bonjour.")
    expect(output(page)).to_have_text("Bonjour.")
    page.click("#copy")
    expect(page.locator("#outcome")).to_contain_text("did not allow it")


def test_a_long_text_keeps_its_buttons_in_sight(page: Page) -> None:
    translate(page, "ligne\n" * 48)
    expect(output(page)).to_contain_text("ligne")
    page.evaluate("scrollTo(0, 0)")
    for button in ("#clear", "#copy"):
        expect(page.locator(button)).to_be_in_viewport()


def test_the_keyboard_reaches_everything_in_order(page: Page) -> None:
    page.clock.install()
    page.clock.pause_at("2100-01-01")
    page.keyboard.type("#flag")
    page.keyboard.press("Control+Enter")  # the page's clock is stopped, so only this sends the text
    expect(output(page).locator("mark")).to_be_visible()
    page.focus("nav a >> nth=0")
    seen = []
    while (here := page.evaluate("(e => e.id || e.textContent)(document.activeElement)")) not in seen:
        seen.append(here)
        page.keyboard.press("Tab")
    body = seen.pop()  # after the last element, the focus goes to the browser's own controls
    assert seen == ["Translate", "Jobs", "Status", "API", "source", "swap", "target", "text", "clear", "#flag", "copy"]
    assert "Tolk" in body


@pytest.mark.parametrize(("text", "why"), [("#flag", "repeat itself"), ("#unsure", "unsure of this sentence")])
def test_a_doubtful_sentence_says_why(page: Page, text: str, why: str) -> None:
    translate(page, text)
    mark = output(page).locator("mark")
    expect(mark).to_have_text(text)
    assert "underline" in mark.evaluate("mark => getComputedStyle(mark).textDecorationLine")
    expect(mark).to_have_accessible_description(re.compile(why))
    expect(page.locator("#outcome")).to_have_text("Translated. Check the underlined sentence.")
    tooltip = page.get_by_role("tooltip")
    expect(tooltip).to_be_hidden()
    mark.hover()
    expect(tooltip).to_contain_text(why)
    page.mouse.move(0, 0)
    expect(tooltip).to_be_hidden()
    mark.focus()
    expect(tooltip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tooltip).to_be_hidden()


def test_both_panes_grow_with_the_text(page: Page) -> None:
    translate(page, "ligne\n" * 40)
    expect(output(page)).to_contain_text("ligne")
    heights = page.evaluate("['text', 'output'].map(id => document.getElementById(id).getBoundingClientRect().height)")
    assert heights[0] == pytest.approx(heights[1], abs=1)
    assert heights[0] > 40 * 20
    assert page.evaluate("(text => text.scrollHeight <= text.clientHeight)(document.getElementById('text'))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(url: str, open_page: Open, check_access: Callable[[Page], None], scheme: str) -> None:
    page = open_page(url, color_scheme=scheme)

    def check() -> None:
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 640})
            check_access(page)

    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", ground)[0]) < 64) == (scheme == "dark")
    check()
    translate(page, "x" * 200)
    expect(output(page)).to_have_text("x" * 200)
    check()
    translate(page, "#unsure")
    output(page).locator("mark").focus()
    expect(page.get_by_role("tooltip")).to_be_visible()
    check()
    translate(page, "#bad")
    expect(page.get_by_role("alert")).to_be_visible()
    check()
    page.fill("#text", "é" * (LIMIT + 1))
    expect(page.locator("#outdated")).to_be_visible()
    check()
    boxes = page.evaluate("""
      [...document.querySelectorAll("a, button, select, textarea")]
        .filter((each) => each.checkVisibility()).map((each) => each.getBoundingClientRect())
    """)
    assert len(boxes) == 10
    assert all(0 <= box["left"] < box["right"] <= 360 for box in boxes)


def test_without_javascript_it_says_so(url: str, open_page: Open) -> None:
    page = open_page(url, java_script_enabled=False)
    expect(page.locator("noscript p")).to_contain_text("This page needs JavaScript.")
    expect(page.locator("noscript a")).to_be_visible()
    expect(page.locator("#text")).to_be_hidden()
