from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.translation.alignment import align
from tasks.contract.reply import Flag, SentenceResult

Span = tuple[int, int]
FLAGS = st.lists(st.sampled_from(Flag), max_size=2, unique=True).map(tuple)
# A sentence or layout, its length in the middle and at the other end.
TILES = st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5), FLAGS), max_size=8)


@dataclass
class Translation:
    """Sentences as spans of a text in the middle and of the text at the other end."""

    spans: list[tuple[Span, Span, tuple[Flag, ...]]]
    text: str


def lay(tiles: list[tuple[bool, int, int, tuple[Flag, ...]]], middle: str, faithful: bool = True) -> Translation:
    spans, text, at = [], "", 0
    for is_sentence, here, there, flags in tiles:
        before = len(text)
        text += middle[at : at + here] if faithful and not is_sentence else "." * there
        if is_sentence:
            spans.append(((at, at + here), (before, len(text)), flags))
        at += here
    return Translation(spans, text + middle[at:])


def length(tiles: list[tuple[bool, int, int, tuple[Flag, ...]]]) -> int:
    return sum(here for _, here, _, _ in tiles)


def layout(text: str, spans: list[Span]) -> str:
    """What no sentence covers."""
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    return "".join(text[end:start] for end, start in zip([0, *ends], [*starts, len(text)], strict=True))


def within(inner: Span, outer: Span) -> bool:
    return outer[0] <= inner[0] <= inner[1] <= outer[1]


@given(first=TILES, second=TILES, faithful=st.booleans())
def test_spans_are_in_order_and_cover_what_both_translations_covered(first, second, faithful: bool) -> None:
    middle = "".join(chr(0x100 + number) for number in range(max(length(first), length(second))))
    before, after = lay(first, middle, faithful), lay(second, middle, faithful)
    aligned = align(
        [SentenceResult(source, target, -1.0, flags) for target, source, flags in before.spans],
        [SentenceResult(source, target, -2.0, flags) for source, target, flags in after.spans],
        before.text,
        after.text,
    )
    sources, targets = [each.source for each in aligned], [each.target for each in aligned]
    for spans, text in ((sources, before.text), (targets, after.text)):
        cuts = [0, *itertools.chain(*spans), len(text)]
        assert cuts == sorted(cuts)
    for _, source, flags in before.spans:
        assert any(within(source, each.source) and set(flags) <= set(each.flags) for each in aligned)
    for _, target, flags in after.spans:
        assert any(within(target, each.target) and set(flags) <= set(each.flags) for each in aligned)
    for (one, source, _), (other, target, _) in itertools.product(before.spans, after.spans):
        if one[0] < other[1] and other[0] < one[1]:
            assert any(within(source, each.source) and within(target, each.target) for each in aligned)
    if faithful:  # not between a language with spaces and one without
        assert layout(before.text, sources) == layout(after.text, targets)
    assert {each.score for each in aligned} <= {-1.0, -2.0, -3.0}


@given(tiles=TILES, others=st.lists(st.integers(0, 5), min_size=8, max_size=8))
def test_what_was_cut_alike_stays_cut(tiles, others: list[int]) -> None:
    middle = "".join(chr(0x100 + number) for number in range(length(tiles)))
    before = lay(tiles, middle)
    after = lay([(is_, here, there, ()) for (is_, here, _, _), there in zip(tiles, others, strict=False)], middle)
    aligned = align(
        [SentenceResult(source, target, -1.0) for target, source, _ in before.spans],
        [SentenceResult(source, target, -2.0) for source, target, _ in after.spans],
        before.text,
        after.text,
    )
    if all(here for is_, here, _, _ in tiles if is_):  # where something is left of every sentence
        pairs = zip(before.spans, after.spans, strict=True)
        assert aligned == tuple(SentenceResult(one[1], other[1], -3.0) for one, other in pairs)


@pytest.mark.parametrize(
    ("first", "second", "aligned"),
    [
        # Two sentences become one in the middle, as far as the second translation sees: one.
        ([((0, 3), (0, 4)), ((4, 8), (5, 9))], [((0, 9), (0, 7))], [((0, 8), (0, 7))]),
        # One becomes two.
        ([((0, 8), (0, 9))], [((0, 4), (0, 3)), ((5, 9), (4, 7))], [((0, 8), (0, 7))]),
        # They overlap in a chain.
        (
            [((0, 2), (0, 4)), ((3, 5), (5, 9)), ((6, 8), (10, 12))],
            [((0, 6), (0, 5)), ((7, 9), (6, 8)), ((10, 12), (9, 11))],
            [((0, 5), (0, 8)), ((6, 8), (9, 11))],
        ),
        # "12 €" was layout to one of them: in the text before, and in the one after.
        ([((5, 8), (5, 9))], [((0, 4), (0, 6)), ((5, 9), (7, 9))], [((0, 4), (0, 6)), ((5, 8), (7, 9))]),
        ([((0, 6), (0, 4)), ((7, 9), (5, 9))], [((5, 9), (5, 8))], [((0, 6), (0, 4)), ((7, 9), (5, 8))]),
        # Nothing was left of a sentence.
        ([((0, 3), (0, 0)), ((4, 6), (1, 3))], [((1, 3), (1, 5))], [((0, 3), (0, 0)), ((4, 6), (1, 5))]),
        # The spaces between sentences were dropped in the middle.
        (
            [((0, 3), (0, 2)), ((4, 6), (2, 4))],
            [((0, 2), (0, 5)), ((2, 4), (6, 8))],
            [((0, 3), (0, 5)), ((4, 6), (6, 8))],
        ),
        ([], [], []),
    ],
)
def test_examples(first, second, aligned) -> None:
    found = align(
        [SentenceResult(*each, -1.0) for each in first],
        [SentenceResult(*each, -1.0) for each in second],
        "s" * 12,
        "t" * 12,
    )
    assert [(each.source, each.target) for each in found] == aligned


def test_scores_are_means_weighted_by_length_and_add() -> None:
    first = [SentenceResult((0, 2), (0, 3), -0.5), SentenceResult((3, 5), (4, 5), -2.0)]
    second = [SentenceResult((0, 5), (0, 7), -0.25)]
    assert align(first, second, "a" * 5, "c" * 7) == (SentenceResult((0, 5), (0, 7), (4 * -0.5 + 2 * -2.0) / 6 - 0.25),)


def test_whatever_a_worker_says_it_ends() -> None:
    odd = [SentenceResult((7, 9), (30, 40), -1.0), SentenceResult((0, 1), (3, 4), -1.0)]
    align(odd, odd, "abc", "abc")
