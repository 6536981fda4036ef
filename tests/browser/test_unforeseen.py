"""Answers that no page expects, and browsers that lack something: people are told (PG-18)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.translating import answer_with, output, translate

pytestmark = pytest.mark.browser

UNREADABLE = "The page does not understand the answer of the service."


@pytest.fixture(scope="module")
def url(start_web: Callable[..., str]) -> str:
    return start_web("", TOLK_TRANSLATOR="echo")


def answer_all(page: Page, data: object, **headers: str) -> None:
    page.route("**/graphql", lambda route: route.fulfill(body=json.dumps({"data": data}), headers=headers))


def answer(*translations: object, **fields: object) -> dict[str, object]:
    return {"data": {"translate": {"requestId": "", "via": [], "translations": [*translations], **fields}}}


BODIES = [
    {"data": {}},
    {"data": {"translate": None}},
    {"data": {"translate": []}},
    {"data": {"translations": "Hello."}},
    answer(),
    answer(None),
    answer("Hello."),
    answer({"text": None, "sentences": []}),
    answer({"text": "Hello."}),
    answer({"text": "Hello.", "sentences": [None]}),
    answer({"text": "Hello.", "sentences": [{"text": "Hello.", "score": -1}]}),
    answer({"text": "Hello.", "sentences": []}, via=None),
    {"errors": ["Something."]},
    {"errors": [None]},
    {"errors": {"length": 1}},
]


def test_an_answer_of_another_shape_is_told(page: Page) -> None:
    translate(page, "Salut.")
    expect(output(page)).to_have_text("Salut.")
    for number, body in enumerate(BODIES):
        answer_with(page, 200, json.dumps(body))
        translate(page, f"Bonjour {number}.")
        expect(page.get_by_role("alert")).to_contain_text(UNREADABLE)
        expect(page.locator("#progress")).to_be_hidden()
        expect(page.locator("#text")).to_have_value(f"Bonjour {number}.")
        expect(output(page)).to_have_class("outdated")
        page.unroute("**/graphql")
        page.get_by_role("button", name="Try again").click()
        expect(output(page)).to_have_text(f"Bonjour {number}.")


def test_an_answer_that_is_none_is_told(page: Page) -> None:
    page.clock.install()
    page.clock.pause_at("2100-01-01")  # without the automatic tries
    for body in (None, [], "Hello.", 7, {}, {"data": None}):
        answer_with(page, 200, json.dumps(body))
        translate(page, f"Bonjour {body}.")
        expect(page.locator("#reason")).to_contain_text("did not answer as it should")
        expect(page.locator("#progress")).to_be_hidden()
        page.fill("#text", "")
        expect(page.locator("#trouble")).to_be_hidden()


def test_an_error_without_details_is_told(page: Page) -> None:
    answer_with(page, 200, json.dumps({"errors": [{"message": "It failed.", "extensions": None}]}))
    translate(page, "Bonjour.")
    expect(page.locator("#reason")).to_have_text("It failed.")


def test_a_detection_of_another_shape_is_told(page: Page) -> None:
    page.select_option("#source", "detect")
    for found in ([], [None], {}, [{"confidence": 1, "served": True}]):
        answer_all(page, {"detect": found}, **{"X-Request-Id": "the-id"})
        translate(page, "Bonjour, je vais dormir.")
        expect(page.get_by_role("alert")).to_contain_text(UNREADABLE)
        expect(page.get_by_role("alert")).to_contain_text("Request the-id.")
        expect(page.locator("#progress")).to_be_hidden()
        page.fill("#text", "")
        expect(page.locator("#trouble")).to_be_hidden()


@pytest.mark.parametrize("flag", ["NEWER_THAN_THE_PAGE", "constructor"])
def test_a_flag_that_the_page_does_not_know_is_a_doubt(page: Page, flag: str) -> None:
    sentence = {"text": "Hello.", "score": 0, "flags": [flag]}
    answer_with(page, 200, json.dumps(answer({"text": "Hello.", "sentences": [sentence]})))
    translate(page, "Bonjour.")
    expect(output(page).locator("mark")).to_have_accessible_description(
        "The model was unsure of this sentence. It may be wrong."
    )


def test_a_status_of_another_shape_is_told_and_asked_for_again(page: Page, url: str) -> None:
    page.route("**/graphql", lambda route: route.fulfill(body='{"data": {"status": {"workers": 3}}}'), times=1)
    page.goto(f"{url}/status")
    expect(page.get_by_role("alert")).to_contain_text(UNREADABLE)
    expect(page.get_by_role("alert")).to_be_hidden()  # the next answer is a good one
    expect(page.locator("#models")).to_contain_text("fr-en")


def test_languages_of_another_shape_change_nothing(page: Page) -> None:
    for languages in (None, [None], 3):
        answer_all(page, {"languages": languages})
        with page.expect_response("**/graphql"):
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.unroute("**/graphql")
    translate(page, "Bonjour.")
    expect(output(page)).to_have_text("Bonjour.")


LACKING = ["AbortSignal.any", "AbortSignal.timeout", "AbortSignal.prototype.throwIfAborted", "document.execCommand"]


def test_an_older_browser_translates_too(url: str, open_page: Callable[..., Page]) -> None:
    page = open_page("about:blank")
    page.add_init_script("".join(f"{each} = undefined;" for each in LACKING))
    page.goto(url)
    page.select_option("#source", "detect")
    translate(page, "Bonjour, je vais dormir.")
    expect(output(page)).to_have_text("Bonjour, je vais dormir.")
    page.click("#clear")
    expect(page.locator("#text")).to_have_value("")
    page.get_by_role("button", name="Undo").click()
    expect(output(page)).to_have_text("Bonjour, je vais dormir.")


def test_the_status_can_be_paused(page: Page, url: str) -> None:
    """PG-51, WCAG 2.2.2."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/graphql") else None)
    page.clock.install()
    with page.expect_response("**/graphql"):
        page.goto(f"{url}/status")
    expect(page.locator("#models")).to_contain_text("fr-en")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("The page does not update.")).to_be_visible()
    before = len(asked)
    page.clock.fast_forward(60_000)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.fast_forward(60_000)
    assert len(asked) == before
    with page.expect_response("**/graphql"):
        page.get_by_role("button", name="Go on").click()
    with page.expect_response("**/graphql"):
        page.clock.fast_forward(3_000)
