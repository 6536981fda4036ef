"""Runaway repetition: a decoder that says the same few tokens over and over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_LONGEST = 32  # tokens in a repeated phrase; bounds the search


class Loop(NamedTuple):
    """`times` (whole) repetitions of the `period` tokens at `start`, in a row."""

    start: int
    period: int
    times: int


def longest_loop(tokens: Sequence[int]) -> Loop:
    """The loop with the most repetitions, of those the one that covers most; `Loop(0, 1, 1)` where nothing repeats."""
    best = Loop(0, 1, 1)
    for period in range(1, min(_LONGEST, len(tokens) // 2) + 1):
        start = 0
        for i in range(period, len(tokens) + 1):
            if i < len(tokens) and tokens[i] == tokens[i - period]:
                continue
            loop = Loop(start, period, (i - start) // period)
            if (loop.times, period) > (best.times, best.period):
                best = loop
            start = i - period + 1
    return best


def runs_away(target: Sequence[int], source: Sequence[int], *, ended: bool) -> bool:
    """Whether `target` says something three times in a row (a single token four times) without a reason.

    A reason is a source that repeats itself half as often; but not where only the length limit `ended` the target.
    """
    loop = longest_loop(target)
    return loop.times > (2 if loop.period > 1 else 3) and (not ended or loop.times > 2 * longest_loop(source).times)


def shorten(tokens: Sequence[int]) -> tuple[int, ...]:
    """The tokens with every loop of three times or more said once."""
    shorter = tuple(tokens)
    while (loop := longest_loop(shorter)).times > 2:
        end = loop.start + loop.times * loop.period
        shorter = shorter[: loop.start + loop.period] + shorter[end:]
    return shorter
