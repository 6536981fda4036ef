"""What the translator page sends, says and keeps while somebody types, with a web tier that echoes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.browser.translating import answer_with, is_request, output, translate

pytestmark = pytest.mark.browser

STATUSES = """
window.said = [];
for (const region of document.querySelectorAll("[role=status], [role=alert]")) {
  new MutationObserver(() => region.textContent.trim() && said.push(region.textContent))
    .observe(region, { childList: true, characterData: true, subtree: true });
}
"""
LINES = ["Un.", "", "  Deux.", "\tTrois.  ", "", "", "Quatre."]

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def url(start_web: Callable[..., str]) -> str:
    return start_web("", TOLK_TRANSLATOR="echo", TOLK_MAX_TEXTS="3")


@pytest.fixture
def sent(page: Page) -> list[list[str]]:
    """The texts of each request for a translation."""
    texts: list[list[str]] = []

    def listen(request: Request) -> None:
        if is_request(request) and "mutation" in request.post_data:
            texts.append(request.post_data_json["variables"]["input"]["texts"])

    page.on("request", listen)
    return texts


def compose(page: Page, *steps: str) -> None:
    """Has an input method show these steps of a word, one after the other."""
    session = page.context.new_cdp_session(page)
    for step in steps:
        session.send("Input.imeSetComposition", {"text": step, "selectionStart": len(step), "selectionEnd": len(step)})
        page.clock.run_for(500)


def commit(page: Page, word: str) -> None:
    page.context.new_cdp_session(page).send("Input.insertText", {"text": word})


def stop_clock(page: Page) -> None:
    page.clock.install()
    page.clock.pause_at("2100-01-01")


def test_only_changed_paragraphs_are_sent(page: Page, sent: list[list[str]]) -> None:
    """PG-12, PG-22: and every paragraph comes out where it was."""
    translate(page, "\n".join(LINES[:4]))
    expect(output(page)).to_have_text("\n".join(LINES[:4]), use_inner_text=True)
    assert sent == [["Un.", "  Deux.", "\tTrois.  "]]
    for text in ("\n".join(LINES), "\n".join([*LINES, "Un."]), "\n".join(["Zéro.", *LINES])):
        translate(page, text)
        expect(output(page)).not_to_have_class("outdated")
        assert page.locator("#output").text_content() == text
    assert sent[1:] == [["Quatre."], ["Zéro."]]
    page.fill("#text", "Un.")
    with page.expect_response("**/graphql"):
        page.select_option("#source", "en")
    assert sent[-1] == ["Un."]  # another pair's translations are others


def test_nine_typed_words_send_their_own_paragraph(page: Page, sent: list[list[str]]) -> None:
    translate(page, "Un.\nDeux.\n\nTrois.\n")
    expect(output(page)).to_contain_text("Trois.")
    stop_clock(page)
    page.focus("#text")
    page.keyboard.press("Control+End")
    for word in range(1, 10):
        with page.expect_response("**/graphql"):
            page.keyboard.type(f"mot{word} ")
            page.clock.run_for(400)
    assert len(sent) == 10
    assert [len(texts) for texts in sent[1:]] == [1] * 9
    assert all(texts[0].startswith("mot1") for texts in sent[1:])


def test_more_paragraphs_than_a_request_takes_go_in_several(page: Page, sent: list[list[str]]) -> None:
    text = "\n".join(f"Ligne {number}." for number in range(7))
    translate(page, text)
    expect(output(page)).to_have_text(text, use_inner_text=True)
    assert [len(texts) for texts in sent] == [3, 3, 1]


def test_one_bad_paragraph_is_named_and_only_that_is_sent_again(page: Page, sent: list[list[str]]) -> None:
    """PG-17."""

    def spoil(route: Route) -> None:
        answer = route.fetch().json()
        answer["data"]["translate"]["translations"][1] |= {
            "text": None,
            "error": {"code": "INTERNAL", "message": "It failed inside the service."},
        }
        route.fulfill(json=answer)

    page.route("**/graphql", spoil, times=1)
    translate(page, "Un.\n\nDeux.\nTrois.")
    expect(page.get_by_role("alert")).to_contain_text("Line 3: It failed inside the service.")
    page.get_by_role("button", name="Try again").click()
    expect(output(page)).to_have_text("Un.\n\nDeux.\nTrois.", use_inner_text=True)
    assert sent == [["Un.", "Deux.", "Trois."], ["Deux."]]


def test_a_new_version_of_the_model_translates_everything_anew(page: Page, sent: list[list[str]]) -> None:
    def renew(route: Route) -> None:
        answer = route.fetch().json()
        answer["data"]["translate"]["version"] = "newer"
        for translation in answer["data"]["translate"]["translations"]:
            translation["text"] += " (newer)"
            translation["sentences"] = []
        route.fulfill(json=answer)

    translate(page, "Un.\nDeux.")
    expect(output(page)).to_contain_text("Deux.")
    page.route("**/graphql", renew)
    translate(page, "Un.\nTrois.")
    expect(output(page)).to_have_text("Un. (newer)\nTrois. (newer)", use_inner_text=True)
    assert sent == [["Un.", "Deux."], ["Trois."], ["Un."]]


@pytest.mark.parametrize("steps", [("k", "か", "かn", "かんj", "漢字"), ("n", "nh", "nhà"), ("ㅎ", "하", "한")])
def test_half_composed_words_are_not_sent(page: Page, sent: list[list[str]], steps: tuple[str, ...]) -> None:
    """PG-11."""
    stop_clock(page)
    page.keyboard.type("a ")  # its pause is not over when the composition begins
    compose(page, *steps)
    page.locator("#text").press("Control+Enter")  # the input method's, not the page's
    page.clock.run_for(5_000)
    assert sent == []
    commit(page, steps[-1])
    page.clock.run_for(500)
    expect(output(page)).to_have_text(f"a {steps[-1]}")
    page.clock.run_for(5_000)
    assert sent == [[f"a {steps[-1]}"]]


def test_a_text_on_its_way_is_not_sent_again(page: Page, sent: list[list[str]]) -> None:
    """PG-11."""
    page.route("**/graphql", lambda _: None)
    with page.expect_request(is_request):
        page.fill("#text", "Bonjour.")
    page.locator("#text").press("Control+Enter")
    page.locator("#text").press("Control+Enter")
    assert sent == [["Bonjour."]]


def test_what_is_pasted_is_sent_without_a_pause(page: Page, sent: list[list[str]]) -> None:
    """PG-9."""
    page.fill("#text", "Bonjour.")
    expect(output(page)).to_have_text("Bonjour.")
    page.locator("#text").press("Control+a")
    page.locator("#text").press("Control+x")
    stop_clock(page)
    page.locator("#text").press("Control+v")
    page.locator("#text").press("Control+v")
    with page.expect_response("**/graphql"):
        page.clock.run_for(1)
    expect(output(page)).to_have_text("Bonjour.Bonjour.")


def test_screen_readers_hear_of_a_translation_when_typing_rests(page: Page) -> None:
    """PG-59."""
    page.evaluate(STATUSES)
    page.select_option("#source", "en")
    stop_clock(page)
    page.focus("#text")
    for word in range(9):
        with page.expect_response("**/graphql"):
            page.keyboard.type(f"word{word} ")
            page.clock.run_for(600)
        expect(output(page)).to_contain_text(f"word{word}")
    assert page.evaluate("said") == []
    page.clock.run_for(1_600)
    expect(page.locator("#outcome")).to_have_text("Translated.")
    page.clock.run_for(60_000)
    assert page.evaluate("said") == ["Translated."]


def test_a_text_too_long_is_not_announced_at_every_keystroke(page: Page) -> None:
    page.fill("#text", "é" * 20_000)
    stop_clock(page)
    page.evaluate(STATUSES)
    page.keyboard.type("abcde")
    assert page.evaluate("said") == []
    page.clock.run_for(1_600)
    assert page.evaluate("said.length") == 1
    expect(page.locator("#outcome")).to_contain_text("5 characters too long")


def test_a_repeated_failure_is_announced_once(page: Page) -> None:
    page.evaluate(STATUSES)
    stop_clock(page)
    answer_with(page, 502, "<html>Bad Gateway")
    page.fill("#text", "Un.")
    for _ in range(3):
        with page.expect_response("**/graphql"):
            page.clock.run_for(3_000)
    expect(page.get_by_role("alert")).to_contain_text("HTTP status 502")
    assert sum("HTTP status 502" in words for words in page.evaluate("said.slice(-1)")) == 1
    reasons = page.evaluate("said.map(words => words.split('Your text')[0])")
    assert len(set(reasons)) == 1


@pytest.mark.parametrize("how", ["button", "keyboard"])
def test_clear_can_be_undone(page: Page, how: str) -> None:
    """PG-19."""
    text = "Un.\n\n  Deux. 😀"
    translate(page, text)
    expect(output(page)).to_contain_text("Deux.")
    page.click("#clear")
    expect(page.locator("#text")).to_have_value("")
    if how == "button":
        page.get_by_role("button", name="Undo").click()
    else:
        page.keyboard.press("Control+z")
    expect(page.locator("#text")).to_have_value(text)
    expect(page.locator("#text")).to_be_focused()
    expect(output(page)).to_contain_text("Deux.")
    expect(page.locator("#undo")).to_be_hidden()


def test_typing_on_ends_the_offer_to_undo(page: Page) -> None:
    page.fill("#text", "Un.")
    page.click("#clear")
    expect(page.locator("#undo")).to_be_visible()
    page.keyboard.type("D")
    expect(page.locator("#undo")).to_be_hidden()


@pytest.mark.parametrize("how", ["button", "keyboard"])
def test_swap_can_be_undone(page: Page, how: str) -> None:
    before = page.input_value("#source"), page.input_value("#target")
    page.route("**/graphql", lambda route: route.fulfill(body=route.fetch().text().replace("Bonjour", "Hello")))
    translate(page, "Bonjour.")
    expect(output(page)).to_have_text("Hello.")
    swap = page.get_by_role("button", name="Swap the languages")
    swap.press("Enter")
    expect(swap).to_be_focused()
    expect(page.locator("#text")).to_have_value("Hello.")
    if how == "button":
        page.get_by_role("button", name="Undo").click()
    else:
        page.locator("#text").press("Control+z")
    expect(page.locator("#text")).to_have_value("Bonjour.")
    assert (page.input_value("#source"), page.input_value("#target")) == before
    expect(output(page)).to_have_text("Hello.")


def test_the_text_survives_a_reload_and_ends_with_clear_and_with_the_tab(page: Page, url: str) -> None:
    """PG-20."""
    text = "Un.\n\nDeux."
    expect(page.get_by_text("Your text stays in this tab")).to_be_visible()
    page.fill("#text", text)
    page.reload()
    expect(page.locator("#text")).to_have_value(text)
    expect(output(page)).to_have_text(text, use_inner_text=True)
    page.get_by_role("link", name="Status").click()
    page.get_by_role("link", name="Translate").click()
    expect(page.locator("#text")).to_have_value(text)
    other = page.context.new_page()
    other.goto(url)
    expect(other.locator("#text")).to_have_value("")
    page.click("#clear")
    assert page.evaluate("[sessionStorage.length, localStorage.getItem('tolk.draft')]") == [0, None]
    page.reload()
    expect(page.locator("#text")).to_have_value("")


def test_without_storage_everything_else_works(url: str, open_page: Open) -> None:
    page = open_page("about:blank")
    page.add_init_script("Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException(); } })")
    page.goto(url)
    translate(page, "Bonjour.")
    expect(output(page)).to_have_text("Bonjour.")


@pytest.mark.parametrize("clipboard", [True, False])
def test_an_outdated_translation_is_copied_as_such(url: str, open_page: Open, clipboard: bool) -> None:
    """PG-23."""
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    if not clipboard:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    translate(page, "Bonjour.")
    expect(output(page)).to_have_text("Bonjour.")
    answer_with(page, 500, "<html>")
    page.fill("#text", "Salut.")
    page.click("#copy")
    expect(page.locator("#outcome")).to_have_text("Copied the translation of an earlier text.")


def test_a_copy_that_the_browser_refuses_is_not_called_one(page: Page) -> None:
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    translate(page, "Bonjour.")
    expect(output(page)).to_have_text("Bonjour.")
    page.evaluate("document.execCommand = () => false")
    page.click("#copy")
    expect(page.locator("#outcome")).to_contain_text("did not allow it")


@pytest.mark.parametrize("viewport", [{"width": 1000, "height": 500}, {"width": 360, "height": 640}])
def test_the_focus_is_never_below_what_sticks_to_an_edge(url: str, open_page: Open, viewport: dict[str, int]) -> None:
    """PG-61, WCAG 2.4.11."""
    page = open_page(url, viewport=viewport)
    text = " ".join(f"Une longue phrase {number}, qui remplit la ligne de l'autre volet." for number in range(60))
    sentences = [{"text": each + ".", "score": 0, "flags": ["SPLIT"]} for each in text[:-1].split(". ")]
    translation = {"via": [], "translations": [{"text": text, "sentences": sentences}]}
    answer_with(page, 200, json.dumps({"data": {"translate": translation}}))
    translate(page, text)
    expect(output(page).locator("mark")).to_have_count(60)
    page.focus("#clear")
    for key in (*["Tab"] * 60, *["Shift+Tab"] * 59):
        page.keyboard.press(key)
        hidden = page.evaluate("""() => {
          const [here] = document.activeElement.getClientRects();
          const [x, y] = [here.left + 4, here.top + here.height / 2];
          const above = document.elementFromPoint(x, y);
          return !above || !document.activeElement.contains(above);
        }""")
        assert not hidden, page.evaluate("document.activeElement.textContent")
