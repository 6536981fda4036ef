"""Properties of what is made of pairs, over many of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
import regex

from models.checkpoint.metadata import Symbols
from models.training.augmentation import Augmenter
from models.training.config import Augmentation
from models.training.copying import copied, hold
from models.training.data import Pair
from models.training.formats import made, numbers, shared_numbers, style, write
from models.training.lexicon import Lexicon
from models.training.spans import Aligner
from models.training.vocabulary import Vocabulary
from tests.models.training.conftest import NOUNS, VERBS

if TYPE_CHECKING:
    Augment = Callable[[str], list[tuple[Pair, Pair]]]

FRENCH, ENGLISH = style("fr"), style("en-GB")
DIGITS = regex.compile(r"\d+")


@pytest.fixture(scope="module")
def aligner(trained: Path) -> Aligner:
    return Aligner(Vocabulary(trained / "model"), Lexicon.load(trained / "lexicon.npz"))


@pytest.fixture
def augment(aligner: Aligner, trained: Path, pairs: list[Pair]) -> Augment:
    """Pairs before and after, all changed in one way."""

    def run(way: str) -> list[tuple[Pair, Pair]]:
        rates = {each.name: float(each.name == way) for each in dataclasses.fields(Augmentation)}
        symbols, random = Vocabulary(trained / "model").symbols, Random(1)
        augmenter = Augmenter(Augmentation(**rates), symbols, ("fr", "en"), aligner)
        found = [(pair, augmenter(pair, pairs, random)) for pair in pairs]
        assert all(text and text == text.strip() for _, made in found for text in made)
        return found

    return run


def test_holds_are_on_both_sides_as_often(augment: Augment) -> None:
    seen: Counter[str] = Counter()
    for _, (source, target) in augment("holds"):
        holds = regex.findall(r"⟦h\d⟧", source)
        assert holds
        assert sorted(holds) == sorted(regex.findall(r"⟦h\d⟧", target))
        assert len(set(holds)) == len(holds)
        seen.update(holds)
    assert seen.keys() == {"⟦h0⟧", "⟦h1⟧", "⟦h2⟧", "⟦h3⟧"}
    assert min(seen.values()) > 0.5 * max(seen.values())


@pytest.mark.parametrize("count", [1, 2])
def test_few_holds_are_enough(count: int, pairs: list[Pair], aligner: Aligner) -> None:
    symbols, random = Symbols(holds=("⟦h0⟧", "⟦h1⟧")[:count]), Random(1)
    for pair in pairs:
        source, target = hold(pair, symbols, (FRENCH, ENGLISH), random, aligner)
        assert 1 <= source.count("⟦") == target.count("⟦") <= count


def test_holds_are_for_what_both_sides_share() -> None:
    pair = Pair(
        "Tom paie 1 234,50 à https://a.fr/b, voir `x.y` et {nom}.",
        "Tom pays 1,234.50 to https://a.fr/b, see `x.y` and {nom}.",
    )
    places = copied(pair, (FRENCH, ENGLISH))
    found = {(pair.source[slice(*p.source)], pair.target[slice(*p.target)]) for p in places}
    same = ("Tom", "https://a.fr/b", "`x.y`", "{nom}")
    assert found == {("1 234,50", "1,234.50"), *zip(same, same, strict=True)}
    assert copied(Pair("Tom voit Tom et 3 ou 3.", "Tom sees Tom and 3 or 3."), (FRENCH, ENGLISH)) == []


def test_pairs_surround_what_translates_each_other(augment: Augment) -> None:
    words = NOUNS | VERBS | {"le": "the", "et": "and"}
    one_word = regex.compile(r"⟦o(\d)⟧ (\w+) ⟦c\1⟧")
    found = []
    for before, after in augment("pairs"):
        assert [regex.sub(r"⟦o\d⟧ | ⟦c\d⟧", "", text) for text in after] == [*before]
        if all(matches := [one_word.search(text) for text in after]):
            found.append([match[2].lower() for match in matches if match])
    right = [words.get(a, a) == b or words.get(a.removesuffix("s")) == b.removesuffix("s") for a, b in found]
    assert sum(right) > 0.95 * len(right) > 50


def test_terms_come_in_the_translation(augment: Augment) -> None:
    obeyed = 0
    for before, (source, target) in augment("terms"):
        match = regex.search(r" ⟦t⟧ (.+?) ⟦/t⟧", source)
        if match is None:
            assert (source, target) == before
            continue
        assert source.replace(match[0], "", 1) == before.source
        assert match[1] in target
        assert "⟦" not in target
        obeyed += target != before.target
    assert obeyed > 20  # asked for a word that would not have come


def test_numbers_change_alike_on_both_sides(augment: Augment) -> None:
    changed = 0
    for before, after in augment("numbers"):
        assert [n.value for n in numbers(after.source, FRENCH)] == [n.value for n in numbers(after.target, ENGLISH)]
        changed += before != after
        assert regex.sub(r"[\d., ]", "", after.source) == regex.sub(r"[\d., ]", "", before.source)
    assert changed > 100


def test_words_and_halves_are_of_the_pair(augment: Augment) -> None:
    for way in ("words", "cut"):
        found = augment(way)
        assert all(a in b for before, after in found for a, b in zip(after, before, strict=True))
        assert sum(before != after for before, after in found) > 100
    words = NOUNS | VERBS
    single = [after for _, after in augment("words") if " " not in after.source and after.source in words]
    assert sum(words[source] == target for source, target in single) > 0.9 * len(single) > 10


def test_several_sentences(augment: Augment, pairs: list[Pair]) -> None:
    known = dict(pairs)
    for _, (source, target) in augment("joined"):
        parts = [f"{part}." for part in source.removesuffix(".").split(". ")]
        assert len(parts) in (2, 3)
        assert " ".join(known[part] for part in parts) == target


def test_surfaces(augment: Augment) -> None:
    assert all(after == Pair(*(text.rstrip(".") for text in before)) for before, after in augment("headings"))
    assert all(after.source.endswith(" :") and after.target[-2:] != " :" for _, after in augment("labels"))
    assert all(after.source.isupper() and after.target.isupper() for _, after in augment("capitals"))
    lists = [after for before, after in augment("lists") if before != after]
    assert all(regex.search(r", |; | \| | / |2\. ", side) for after in lists for side in after)


def test_without_an_aligner_and_rates_a_pair_stays(pairs: list[Pair], trained: Path) -> None:
    rates = dict.fromkeys((each.name for each in dataclasses.fields(Augmentation)), 0.0)
    symbols = Vocabulary(trained / "model").symbols
    augmenter = Augmenter(Augmentation(**rates), symbols, ("fr", "en"))
    assert [augmenter(pair, pairs, Random(1)) for pair in pairs] == pairs
    needing = Augmenter(Augmentation(**rates | {"words": 1.0, "terms": 1.0}), symbols, ("fr", "en"))
    assert [needing(pair, pairs, Random(1)) for pair in pairs] == pairs


def test_formats_say_the_same_digits_in_both_languages() -> None:
    random = Random(1)
    found = [pair for _ in range(500) if (pair := made(("fr", "en"), random))]
    assert len(found) == 500
    for source, target in found:
        assert sorted(DIGITS.findall(source)) == sorted(DIGITS.findall(target)), (source, target)
        assert "{" not in source + target
    assert made(("fr", "de"), random) is None


@pytest.mark.parametrize(
    ("text", "of", "values"),
    [
        ("Il y a 1 234,56 € et 12 chats.", FRENCH, ["1234.56", "12"]),
        ("It has 1,234.56 and 12 cats, or 3,456.", ENGLISH, ["1234.56", "12", "3456"]),
        ("v1.2.3 le 12/03/2021 à 14:30, A4 et 3e, 1.2.3", FRENCH, []),
        ("5 pommes et 1000", FRENCH, ["5", "1000"]),
    ],
)
def test_numbers_are_found(text: str, of: object, values: list[str]) -> None:
    assert [number.value for number in numbers(text, of)] == values  # type: ignore[arg-type]


def test_numbers_are_written() -> None:
    assert write("1234567.5", FRENCH, is_grouped=True) == "1 234 567,5"
    assert write("1234567.5", ENGLISH, is_grouped=True) == "1,234,567.5"
    assert write("1234567.5", ENGLISH, is_grouped=False) == "1234567.5"
    shared = shared_numbers(Pair("1 000 et 2 et 2", "1,000 and 2"), (FRENCH, ENGLISH))
    assert [(one.value, one.is_grouped, other.is_grouped) for one, other in shared] == [("1000", True, True)]
