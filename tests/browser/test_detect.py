"""The page finds out which language a text is in (PG-1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.translating import is_request, output, translate

pytestmark = [pytest.mark.browser, pytest.mark.broker]

FRENCH = "Je vais dormir, parce qu'il est déjà très tard."
ENGLISH = "I am going to bed now because it is very late."
POLISH = "Dzień dobry, gdzie jest najbliższa biblioteka?"


def chosen(page: Page) -> tuple[str, str]:
    return page.input_value("#source"), page.input_value("#target")


def test_the_language_is_found_and_the_page_says_which(page: Page, check_access: Callable[[Page], None]) -> None:
    expect(page.locator("#source option").first).to_have_text("Detect language")
    page.select_option("#source", "detect")
    page.select_option("#target", "de")
    check_access(page)
    translate(page, FRENCH)
    expect(output(page)).to_have_text(FRENCH)
    expect(page.locator("#source option:checked")).to_have_text("French (detected)")
    expect(page.locator("#outcome")).to_have_text("Translated from French.")
    expect(page.locator("#text")).to_have_attribute("lang", "fr")
    assert chosen(page) == ("detect", "de")
    check_access(page)


def test_the_direction_follows_the_text(page: Page) -> None:
    page.select_option("#source", "detect")
    page.select_option("#target", "en")
    for text, target in ((FRENCH, "en"), (ENGLISH, "fr"), (f"{FRENCH} Bonne nuit.", "en")):
        with page.expect_response(lambda response: "translate" in (response.request.post_data or "")) as sent:
            translate(page, text)
        assert sent.value.request.post_data_json["variables"]["input"]["target"] == target
        expect(output(page)).to_have_attribute("lang", target)
        assert chosen(page) == ("detect", target)


def test_a_short_text_does_not_turn_the_page_round(page: Page) -> None:
    page.select_option("#source", "detect")
    translate(page, FRENCH)
    expect(page.locator("#source option:checked")).to_have_text("French (detected)")
    translate(page, "Sunday morning")
    expect(output(page)).to_have_text("Sunday morning")
    expect(page.locator("#source option:checked")).to_have_text("French (detected)")
    page.click("#clear")
    expect(page.locator("#source option:checked")).to_have_text("Detect language")
    translate(page, "Sunday morning")
    expect(page.locator("#source option:checked")).to_have_text("English (detected)")


def test_a_language_that_is_not_served_is_named(page: Page) -> None:
    page.select_option("#source", "detect")
    translate(page, POLISH)
    reason = "The text seems to be in Polish, which cannot be translated here. If it is not, choose its language."
    expect(page.locator("#reason")).to_have_text(reason)
    expect(output(page)).to_be_empty()
    expect(page.locator("#source option:checked")).to_have_text("Detect language")
    page.select_option("#source", "fr")
    expect(output(page)).to_have_text(POLISH)
    expect(page.locator("#trouble")).to_be_hidden()


def test_a_text_without_letters_is_shown_as_it_is(page: Page) -> None:
    page.select_option("#source", "detect")
    translate(page, "12 + 30 = 42")
    expect(output(page)).to_have_text("12 + 30 = 42")


def test_swapping_takes_the_language_that_was_found(page: Page) -> None:
    page.select_option("#source", "detect")
    page.select_option("#target", "en")
    swap = page.get_by_role("button", name="Swap the languages")
    swap.press("Enter")
    expect(page.locator("#outcome")).to_have_text("Which language the text is in is not known yet.")
    translate(page, FRENCH)
    expect(output(page)).to_have_text(FRENCH)
    with page.expect_request(is_request) as sent:
        swap.click()
    sent_input = sent.value.post_data_json["variables"]["input"]
    assert (sent_input["source"], sent_input["target"]) == ("en", "fr")
    assert chosen(page) == ("en", "fr")


def test_the_choice_is_remembered(page: Page) -> None:
    page.select_option("#source", "detect")
    page.select_option("#target", "de")
    page.reload()
    assert chosen(page) == ("detect", "de")
    expect(page.locator("#source option:checked")).to_have_text("Detect language")
