"""FID-6: numbers are compared as values."""

from __future__ import annotations

import pytest

from text.numbers import mismatch, written


@pytest.mark.parametrize(
    ("french", "english"),
    [
        ("1 234,56 €", "€1,234.56"),
        ("14 h 30", "2:30 p.m."),
        ("14 h 00", "2 p.m."),
        ("le 3 mars 2004", "March 3, 2004"),
        ("le 3/3/2004", "on 3 March 2004"),
        ("au XXe siècle", "in the 20th century"),
        ("trois chats", "3 cats"),
        ("vingt-trois chats", "23 cats"),
        ("quatre-vingt-dix", "90"),
        ("3 millions", "three million"),
        ("1 500 000", "1.5 million"),
        ("les années 90", "the 1990s"),
        ("le 1er", "the first"),
        ("1.000", "1,000"),
        ("3,14", "3.14"),
        ("Bonjour", "Hello"),
    ],
)
def test_the_same_values(french: str, english: str) -> None:
    assert mismatch(french, english, "fr", "en") is None
    assert mismatch(english, french, "en", "fr") is None


@pytest.mark.parametrize(
    ("french", "english"),
    [
        ("37 jours", "three days"),
        ("2004", "204"),
        ("1,000", "1,000"),
        ("1,5 %", "15%"),
        ("le 3 mars 2004", "March 2004"),
        ("5 à 5", "5"),
        ("un jour", "37 days"),
    ],
)
def test_other_values(french: str, english: str) -> None:
    assert mismatch(french, english, "fr", "en") is not None


def test_a_number_in_the_style_of_a_language() -> None:
    assert written("1 234,56", "fr", "en") == "1,234.56"
    assert written("1,234.56", "en", "fr") == "1\u202f234,56"
    assert written("2004", "fr", "en") == "2004"
    assert written("1.2.3", "en", "fr") == "1.2.3"
