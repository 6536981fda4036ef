"""FID-6: numbers are compared as values."""

from __future__ import annotations

import pytest

from text.numbers import amounts, mismatch, written


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
        ("la guerre de 1950-1953", "the 1950-53 war"),
        ("en 2019-20", "in 2019-2020"),
        ("à 04h40", "at 4.40 am"),
        ("le protocole 5.3.1", "the protocol 5.3.1"),
        ("-5 °C", "−5 °C"),
        ("-5 degrés", "5 degrees below zero"),
        ("5 à 10 %", "5 to 10 percent"),
        ("de 5-10 pages", "of 5–10 pages"),
        ("100 $", "100 dollars"),
        ("à 16 h", "at 4 p.m."),
        ("à 4 h de l'après-midi", "at 4 p.m."),
        ("à 16 h", "at four o'clock"),
        ("le 3 déc. 2004", "3 December 2004"),
        ("le 3 mai 2004", "3/5/2004"),
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
        ("à 4 h 27", "at 4:27 p.m."),
        ("le 18 mars 1937", "on 18, 1937"),
        ("le 18 mars 1937", "18 May 1937"),
        ("à 14 h 30 le 3 mars 2004", "14:30 March 2004"),
        ("1950-1953", "1950-54"),
        ("1 234,56 €", "1,234.56"),
        ("1 234,56 €", "$1,234.56"),
        ("1 234,56", "£1,234.56"),
        ("Ce livre coûte 175,54", "This book costs £175.54"),
        ("3,5 %", "3.5"),
        ("Il fait -5 °C", "It is 5 °C"),
    ],
)
def test_other_values(french: str, english: str) -> None:
    assert mismatch(french, english, "fr", "en") is not None


def test_a_number_in_the_style_of_a_language() -> None:
    assert written("1 234,56", "fr", "en") == "1,234.56"
    assert written("1,234.56", "en", "fr") == "1\u202f234,56"
    assert written("2004", "fr", "en") == "2004"
    assert written("1.2.3", "en", "fr") == "1.2.3"


def test_the_signs_at_a_number_are_written_as_a_language_does() -> None:
    assert written("-1 234,56 €", "fr", "en") == "-€1,234.56"
    assert written("$1,234.56", "en", "fr") == "1\u202f234,56\u00a0$"
    assert written("50 %", "fr", "en") == "50%"


def test_a_time_is_written_by_24_hours() -> None:
    assert written("4:27 p.m", "en", "fr") == "16\u00a0h\u00a027"
    assert written("12 a.m", "en", "fr") == "0\u00a0h"
    assert written("14 h 30", "fr", "en") == "14:30"
    text = "At 4:27 p.m."
    assert [text[start:end] for start, end in amounts(text, "en")] == ["4:27 p.m"]


def test_an_amount_has_its_signs() -> None:
    text = "De -5 à 10 %, 1 234,56 € ou $3; p. 5-10"
    assert [text[start:end] for start, end in amounts(text, "fr")] == ["-5", "10 %", "1 234,56 €", "$3", "5", "10"]
