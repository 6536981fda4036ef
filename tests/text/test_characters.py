from __future__ import annotations

import re

import pytest

from text.characters import clean, refusal, visible


@pytest.mark.parametrize("text", ["", "été 😀 \u202e\u200b\x07", "\U0010ffff", "\ufeffa"])
def test_well_formed_text_is_accepted(text: str) -> None:
    assert refusal(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ab\x00c", r"Character 3 of the text is NUL \(U\+0000\)"),
        ("\ud83d", r"Character 1 of the text is half of a surrogate pair \(U\+D83D\)"),
        ("a\udc00", r"Character 2 .* \(U\+DC00\)"),
    ],
)
def test_malformed_text_is_refused_with_its_place(text: str, message: str) -> None:
    assert re.search(message, refusal(text) or "")


HIDDEN = [*range(9), *range(14, 28), 31, *range(127, 133), *range(134, 160), 0xAD, 0x061C, 0x200B, 0x200E, 0x200F]
HIDDEN += [*range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF, 0xD800, 0xDFFF, 0xFFFE, 0xFDD0, 0x10FFFF, 0xE0041]


@pytest.mark.parametrize("character", [chr(code) for code in HIDDEN], ids=[hex(code) for code in HIDDEN])
def test_a_hidden_character_comes_out_only_if_it_came_in(character: str) -> None:
    assert clean(f"a{character}b", "source") == "ab"
    assert clean(f"a{character}b", f"sou{character}rce") == f"a{character}b"


@pytest.mark.parametrize(
    "text", ["été — « 5 € »", "a\tb", "☀\ufe0f", "می\u200cخواهم", "क्\u200dष", "日本語", "\U0001f600"]
)
def test_what_belongs_to_a_text_stays(text: str) -> None:
    assert clean(text, "") == text


def test_joiners_that_join_nothing_go() -> None:
    assert clean("a\u200db\u200c c", "") == "ab c"


def test_a_sentence_stays_on_its_line() -> None:
    assert clean(" a\r\nb\u2028c\x85", "\n") == "a b c"


@pytest.mark.parametrize(
    "hidden", "\u00ad\u034f\u061c\u115f\u180e\u200b\u200e\u202e\u2060\u2066\u3164\ufeff\U000e0041\x1b"
)
def test_hidden_characters_within_words_are_not_visible(hidden: str) -> None:
    assert visible(f"Bon{hidden}jour") == "Bonjour"


@pytest.mark.parametrize("text", ["Bonjour, été 12 €\u00a0!", "می\u200cخواهم", "क्\u200dष", "❤\ufe0f", "你好"])
def test_characters_that_a_script_or_a_glyph_needs_are_visible(text: str) -> None:
    assert visible(text) == text
