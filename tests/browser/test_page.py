"""The translator page in front of gunicorn, RabbitMQ and a worker that gives every text back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, Route, expect

from launch.rabbitmq import PrivateRabbitMQ

pytestmark = [pytest.mark.browser, pytest.mark.broker]

LIMIT = 300
MODELS = """
[models.fr-en]
reference = "fr-en"
pairs = [{ source = "fr", target = "en" }]
[models.en-fr]
reference = "fr-en"
pairs = [{ source = "en", target = "fr" }]
[models.fr-de]
reference = "fr-en"
pairs = [{ source = "fr", target = "de" }]
"""
HISTORY = """
window.history_ = [];
new MutationObserver(() => history_.push(document.getElementById("output").textContent))
  .observe(document.getElementById("output"), { childList: true });
"""

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def url(
    broker: PrivateRabbitMQ, start_worker, start_web: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A service that translates there and back, and in a third direction there only."""
    models: Path = tmp_path_factory.mktemp("models") / "models.toml"
    models.write_text(MODELS)
    start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
    return start_web(broker.url, TOLK_MODELS=str(models), TOLK_MAX_TEXT_CHARACTERS=str(LIMIT))


@pytest.fixture
def page(url: str, open_page: Open) -> Page:
    return open_page(url)


def output(page: Page):
    return page.locator("#output")


def translate(page: Page, text: str) -> None:
    """Without the pause that typing ends with."""
    page.fill("#text", text)
    page.locator("#text").press("Control+Enter")


def is_request(request) -> bool:
    return request.url.endswith("/graphql")


def text_of(request) -> str:
    return request.post_data_json["variables"]["input"]["texts"][0]


def answer_with(page: Page, status: int, body: str) -> list[str]:
    """Has the API answer so, and returns the list of the texts that arrive there."""
    texts: list[str] = []

    def answer(route: Route) -> None:
        texts.append(text_of(route.request))
        route.fulfill(status=status, body=body)

    page.route("**/graphql", answer)
    return texts


def error(code: str, message: str, **extensions: object) -> str:
    return json.dumps({"errors": [{"message": message, "extensions": {"code": code, **extensions}}]})


def test_a_text_is_translated_as_it_is_typed(page: Page) -> None:
    page.keyboard.type("Bonjour.  Ça va ?\n\n- <b>😀")  # where one types is where the page begins
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
    page.fill("#text", "#sleep 0.6")  # until after the first one's answer
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
    if not clipboard:  # as in a page over HTTP from another machine
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


def test_the_languages_are_remembered_and_the_text_is_not(page: Page) -> None:
    translate(page, "Guten Tag.")
    page.select_option("#target", "de")
    expect(output(page)).to_have_attribute("lang", "de")
    page.reload()
    assert (page.input_value("#source"), page.input_value("#target")) == ("fr", "de")
    assert page.input_value("#text") == ""
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


@pytest.mark.parametrize(("text", "message"), [("#bad", "a bad text"), ("#fail", "failed inside the service")])
def test_an_error_leaves_the_text_and_marks_the_translation_as_outdated(page: Page, text: str, message: str) -> None:
    translate(page, "Bonjour.")
    expect(output(page)).to_have_text("Bonjour.")
    expect(page.locator("#outdated")).to_be_hidden()
    translate(page, text)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(message)
    expect(alert).to_contain_text(re.compile("Request [0-9a-f-]{36}"))
    expect(page.locator("#text")).to_have_value(text)
    expect(output(page)).to_have_text("Bonjour.")
    expect(output(page)).to_have_class("outdated")
    expect(page.locator("#outdated")).to_be_visible()
    translate(page, "Salut.")
    expect(output(page)).to_have_text("Salut.")
    expect(alert).to_be_hidden()
    expect(page.locator("#outdated")).to_be_hidden()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, error("OVERLOADED", "Too many wait.", retryAfter=1), "Too many wait."),
        (429, error("RATE_LIMITED", "Too fast.", retryAfter=1), "Too fast."),
        (429, "<html>Too Many Requests", "HTTP status 429"),
        (502, "<html>Bad Gateway", "HTTP status 502"),
        (200, '{"data": {"transl', "HTTP status 200"),
    ],
)
def test_what_passes_is_tried_again_by_itself(page: Page, status: int, body: str, message: str) -> None:
    page.clock.install()
    answer_with(page, status, body)
    page.fill("#text", "Bonjour.")
    page.clock.fast_forward(400)
    expect(page.get_by_role("alert")).to_contain_text(message)
    expect(page.get_by_role("alert")).to_contain_text("The page tries again")
    page.unroute("**/graphql")
    page.clock.fast_forward(1_000)
    expect(output(page)).to_have_text("Bonjour.")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_typing_does_not_bring_the_next_try_forward(page: Page) -> None:
    page.clock.install()
    page.clock.pause_at("2100-01-01T12:00:00")
    texts = answer_with(page, 429, error("RATE_LIMITED", "Too fast.", retryAfter=30))
    page.fill("#text", "Un.")
    page.clock.run_for(400)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The page tries again at 12:00:30.")
    for text in ("Deux.", "", "Trois."):
        page.fill("#text", text)
        page.clock.run_for(5_000)
    expect(alert).to_contain_text("Too fast.")
    expect(alert).to_contain_text("The page tries again at 12:00:30.")
    assert texts == ["Un."]
    page.unroute("**/graphql")
    with page.expect_request(is_request):
        page.clock.run_for(16_000)
    expect(output(page)).to_have_text("Trois.")
    page.fill("#text", "Quatre.")
    page.clock.run_for(400)
    expect(output(page)).to_have_text("Quatre.")


def test_who_has_to_wait_for_long_is_told_until_when(page: Page) -> None:
    page.clock.install()
    page.clock.pause_at("2100-01-01T12:00:00")
    texts = answer_with(page, 429, error("RATE_LIMITED", "The characters are used up.", retryAfter=30 * 86_400))
    page.fill("#text", "Un.")
    page.clock.run_for(400)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Another try makes sense from 31 January 2100 at 12:00 on, or with a shorter text.")
    page.fill("#text", "Deux.")
    page.clock.fast_forward(3_600_000)
    assert texts == ["Un."]
    page.unroute("**/graphql")
    page.get_by_role("button", name="Try again").click()
    expect(output(page)).to_have_text("Deux.")


def test_a_proxy_that_says_when_is_heeded(page: Page) -> None:
    page.clock.install()
    page.clock.pause_at("2100-01-01T12:00:00")
    page.route("**/graphql", lambda route: route.fulfill(status=503, body="<html>", headers={"Retry-After": "90"}))
    page.fill("#text", "Un.")
    page.clock.run_for(400)
    expect(page.get_by_role("alert")).to_contain_text("The page tries again at 12:01:30.")


def test_trying_again_by_itself_has_an_end(page: Page, eventually: Callable[..., None]) -> None:
    def later() -> int:
        page.clock.fast_forward(20_000)
        return len(texts)

    page.clock.install()
    texts = answer_with(page, 503, error("UNAVAILABLE", "The broker is away.", retryAfter=1))
    page.fill("#text", "Bonjour.")
    eventually(lambda: later() >= 6)
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.get_by_role("alert")).not_to_contain_text("tries again")
    page.clock.fast_forward(600_000)
    assert texts == ["Bonjour."] * 6
    page.unroute("**/graphql")
    page.get_by_role("button", name="Try again").click()
    expect(output(page)).to_have_text("Bonjour.")
    expect(page.locator("#text")).to_be_focused()


def test_a_service_that_never_answers_is_given_up_and_asked_again(page: Page) -> None:
    page.evaluate(
        "(real => { AbortSignal.timeout = (time) => real.call(AbortSignal, time / 1000); })(AbortSignal.timeout)"
    )
    page.route("**/graphql", lambda _: None)
    translate(page, "Bonjour.")
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer.")
    expect(page.locator("#text")).to_have_value("Bonjour.")
    page.evaluate("() => { AbortSignal.timeout = () => new AbortController().signal }")
    page.unroute("**/graphql")
    expect(output(page)).to_have_text("Bonjour.")


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


def test_an_error_that_stays_waits_for_the_button(page: Page) -> None:
    page.clock.install()
    page.clock.pause_at("2100-01-01")
    texts = answer_with(page, 500, "<html>Internal Server Error")
    page.fill("#text", "Bonjour.")
    page.locator("#text").press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("HTTP status 500")
    page.clock.fast_forward(600_000)
    assert texts == ["Bonjour."]
    page.unroute("**/graphql")
    page.get_by_role("button", name="Try again").click()
    expect(output(page)).to_have_text("Bonjour.")


def test_without_a_network_the_text_stays_and_is_translated_later(page: Page) -> None:
    page.context.set_offline(True)
    page.fill("#text", "Bonjour.")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    expect(page.locator("#text")).to_have_value("Bonjour.")
    page.context.set_offline(False)
    expect(output(page)).to_have_text("Bonjour.")


def test_the_keyboard_reaches_everything_in_order(page: Page) -> None:
    page.clock.install()
    page.clock.pause_at("2100-01-01")
    page.keyboard.type("#flag")
    page.keyboard.press("Control+Enter")  # the clock stands: nothing else sends it
    expect(output(page).locator("mark")).to_be_visible()
    page.focus("nav a >> nth=0")
    seen = []
    while (here := page.evaluate("(e => e.id || e.textContent)(document.activeElement)")) not in seen:
        seen.append(here)
        page.keyboard.press("Tab")
    body = seen.pop()  # behind the last one, the browser's own controls
    assert seen == ["Translate", "Status", "API", "source", "swap", "target", "text", "clear", "#flag", "copy"]
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
    assert len(boxes) == 9
    assert all(0 <= box["left"] < box["right"] <= 360 for box in boxes)


def test_without_javascript_it_says_so(url: str, open_page: Open) -> None:
    page = open_page(url, java_script_enabled=False)
    expect(page.locator("noscript p")).to_contain_text("This page needs JavaScript.")
    expect(page.locator("noscript a")).to_be_visible()
    expect(page.locator("#text")).to_be_hidden()
