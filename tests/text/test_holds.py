"""FID-2: one table of what comes through as it is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.holds import Profile, find


def held(text: str, profile: Profile = Profile.AUTO, *preserve: str) -> list[str]:
    return [text[hold.start : hold.end] for hold in find(text, profile, preserve)]


@pytest.mark.parametrize(
    "text",
    [
        "Il a «%s» et «%1$s», «%(name)s», «%.2f», «%@», «%lld», «%#@var@»",
        "Ici «{0}», «{}», «{name}», «{0!r:>10}», «{0:N2}», «{n, number}», «{count, plural, one {# x} other {# y}}»",
        "Là «{{x}}», «{{ x | date }}», «{% if a %}», «{{{x}}}», «${v}», «%{z}», «#{q}», «$t(key)», «{$N}»",
        'Un «<b>»gras«</b>», «<x id="1"/>», «<br/>», «&nbsp;», «@@PH1@@», «⟦h3⟧», «:smile:»',
        "Voir «https://fr.wikipedia.org/wiki/A_(b)», («https://x.y/z»), «www.example.com» ou «a.b@c.fr».",
        "Le fichier «config.yaml», «/etc/hosts», «snake_case», «camelCase», «MAX_VALUE», «print()», «--verbose=3»",
        "La version «v1.2.3» ou «1.2.3», «192.168.0.1», «AB-1234-X», «FR7630006000», «`un code`»",
        "Appelez le «+33 6 12 34 56 78» ou le «01 23 45 67 89».",
    ],
)
def test_auto_finds_what_is_unambiguous(text: str) -> None:
    expected = [each.split("»")[0] for each in text.split("«")[1:]]
    assert held(text.replace("«", "").replace("»", "")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Une remise de 50 % de plus, 20 %de moins et 5%d'eau.",
        "Le 12.05.2004, 1.234.567 habitants, 14:30:25, 3.14 et 100 km/h.",
        "C'est-à-dire et/ou M. Dupont : a < b > c, 5 $US, Q&R.",
        "Est-ce que l'eau est à 20 °C ? Oui : 3-4 fois.Il pleut.",
    ],
)
def test_auto_leaves_prose_alone(text: str) -> None:
    assert held(text) == []


def test_profiles_and_words_by_list() -> None:
    assert held("%s et {x}", Profile.OFF) == []
    assert held("Il vaut $x", Profile.SHELL) == ["$x"]
    assert held("Il vaut $x") == []
    assert held("Le Pack Office de Office365", Profile.OFF, "Office", "Pack Office") == ["Pack Office"]


@given(st.text("ab_%{}<>/=\"' 0.-:@`\\$(),é&;#", max_size=60))
def test_holds_are_in_order_and_apart(text: str) -> None:
    at = 0
    for hold in find(text):
        assert at <= hold.start < hold.end <= len(text)
        at = hold.end


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "<a ",
        "a.",
        "_",
        "%",
        "`",
        "/a",
        "1.",
        "A1-",
        "{a, plural,",
        "0 ",
        "+1",
        '<a b="',
        "https://",
        "$t(",
        "<!--",
        "01 ",
    ],
)
def test_no_text_takes_long(unit: str) -> None:
    began = time.process_time()
    find(unit * (60_000 // len(unit)))
    assert time.process_time() - began < 3
