"""The messages of the translator page for errors, and its automatic retries."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.translating import answer_with, error, is_request, output, translate

pytestmark = [pytest.mark.browser, pytest.mark.broker]


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
    page.clock.install()
    page.route("**/graphql", lambda _: None)
    with page.expect_request(is_request):
        translate(page, "Bonjour.")
    page.clock.fast_forward(16_000)
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer.")
    expect(page.locator("#text")).to_have_value("Bonjour.")
    page.unroute("**/graphql")
    page.clock.fast_forward(1_000)
    expect(output(page)).to_have_text("Bonjour.")


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
