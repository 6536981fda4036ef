"""Which pairs are trained on."""

from __future__ import annotations

import pytest

from models.training.cleaning import Cleaner, Counts, key, keys
from models.training.config import Cleaning
from models.training.data import Pair


def cleaned(pairs: list[Pair], *held_out: Pair, **settings: object) -> tuple[list[Pair], Counts]:
    counts = Counts()
    cleaner = Cleaner(Cleaning(**settings), keys(held_out))  # type: ignore[arg-type]
    return list(cleaner.clean(pairs, counts)), counts


def test_every_pair_is_counted_once_by_its_reason() -> None:
    pairs = [
        Pair("Il pleut.", "It rains."),
        Pair("Il pleut.", "It is raining."),
        Pair("Il  pleut.\u00a0", "It rains."),  # the first one, with other blanks
        Pair("", "Nothing."),
        Pair("\u200b \t", "Nothing."),
        Pair("Tom", "Tom"),
        Pair("Oui, cela me convient très bien.", "Yes."),
        Pair("a" * 700, "b" * 700),
        Pair("Où est le chat ?", "Where is the cat?"),
        Pair("Le chat dort.", "It sleeps."),
    ]
    kept, counts = cleaned(pairs, Pair("OÙ EST LE CHAT", "…"), Pair("x", "it sleeps!"))
    assert kept == pairs[:2]
    assert counts == Counts(read=10, empty=2, held_out=2, same=1, long=1, ratio=1, duplicate=1, kept=2)
    assert counts + counts == Counts(20, 4, 4, 2, 2, 2, 2, 4)


def test_equal_sides_stay_if_wanted() -> None:
    assert cleaned([Pair("Tom", "Tom")], same=True)[0] == [Pair("Tom", "Tom")]


def test_duplicates_are_told_over_sources() -> None:
    cleaner, first, second = Cleaner(Cleaning()), Counts(), Counts()
    pair = Pair("Oui.", "Yes.")
    assert list(cleaner.clean([pair], first)) == [pair]
    assert list(cleaner.clean([pair], second)) == []
    assert (first.kept, second.duplicate) == (1, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("L'été, déjà !", "l’été déjà"),
        ("E\u0301te\u0301", "Été"),
        ("Straße", "STRASSE"),
        ("１２３ ab", "123 AB."),
        ("a\u00a0b", "a b"),
    ],
)
def test_keys_see_letters_and_digits_alone(one: str, other: str) -> None:
    assert key(one) == key(other)


@pytest.mark.parametrize(("one", "other"), [("été", "ete"), ("1 2", "12"), ("!!", "??"), ("a b", "ab")])
def test_keys_tell_others_apart(one: str, other: str) -> None:
    assert key(one) != key(other)
