"""Aligns the sentences of a text that was translated through another language, from those of both translations."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tasks.contract.reply import Flag, SentenceResult

Span = tuple[int, int]


class Piece(NamedTuple):
    """A sentence of one translation: its span in the middle text, and its span in the outer text (source or target)."""

    middle: Span
    outer: Span
    sentence: SentenceResult


@dataclass(slots=True)
class Group:
    """Pieces of both translations that overlap in the middle text, in which they reach from `start` to `end`."""

    start: int
    end: int
    pieces: tuple[list[Piece], list[Piece]]


def align(
    first: Iterable[SentenceResult], second: Iterable[SentenceResult], source: str, target: str
) -> tuple[SentenceResult, ...]:
    """The sentences from `source` to `target`, in order and not overlapping. `first` are the sentences from `source` to
    the middle text, `second` those from the middle text to `target`.

    Sentences that overlap in the middle text become one, which covers all of them. A sentence without a counterpart was
    layout to the other translation, which copied it, so its span is found from its neighbours.
    """
    groups = _group(
        [Piece(sentence.target, sentence.source, sentence) for sentence in first],
        [Piece(sentence.source, sentence.target, sentence) for sentence in second],
    )
    return tuple(
        SentenceResult(
            source=source_span,
            target=target_span,
            score=sum(map(_score, group.pieces)),
            flags=unite(piece.sentence.flags for pieces in group.pieces for piece in pieces),
        )
        for group, source_span, target_span in zip(
            groups, _outer(groups, 0, len(source)), _outer(groups, 1, len(target)), strict=True
        )
    )


def unite(flags: Iterable[Iterable[Flag]]) -> tuple[Flag, ...]:
    """The flags that are raised in any of them, each once, in the order of Flag."""
    raised = {flag for each in flags for flag in each}
    return tuple(flag for flag in Flag if flag in raised)


def _group(first: Sequence[Piece], second: Sequence[Piece]) -> list[Group]:
    groups: list[Group] = []
    tagged = ([(piece.middle, side, piece) for piece in pieces] for side, pieces in enumerate((first, second)))
    for (start, end), side, piece in heapq.merge(*tagged, key=lambda each: each[:2]):
        if not groups or start >= groups[-1].end:
            groups.append(Group(start, end, ([], [])))
        groups[-1].end = max(groups[-1].end, end)
        groups[-1].pieces[side].append(piece)
    return groups


def _outer(groups: Sequence[Group], side: int, length: int) -> list[Span]:
    """The spans of all groups in an outer text of `length` characters: the source for `side` 0, the target for 1."""
    starts = [piece.outer[0] for group in groups for piece in group.pieces[side]]
    starts.append(length)
    passed, middle, outer = 0, 0, 0  # the number of pieces so far, and where the last one ends
    spans = []
    for group in groups:
        pieces = group.pieces[side]
        if pieces and pieces[0].middle[0] == group.start:
            begin = pieces[0].outer[0]
        else:  # the group begins in layout, which is about the same in both texts
            begin = min(outer + group.start - middle, starts[passed])
        passed += len(pieces)
        if pieces:
            middle, outer = pieces[-1].middle[1], pieces[-1].outer[1]
        spans.append((begin, min(outer + group.end - middle, starts[passed])))
    return spans


def _score(pieces: Sequence[Piece]) -> float:
    """The mean score per token, estimated with characters for tokens; 0 if there are no pieces."""
    weights = [piece.sentence.target[1] - piece.sentence.target[0] + 1 for piece in pieces]
    scores = (piece.sentence.score * weight for piece, weight in zip(pieces, weights, strict=True))
    return sum(scores) / sum(weights) if pieces else 0.0
