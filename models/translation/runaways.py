"""Runaway repetition, when the decoder repeats a few tokens over and over: it is detected, decoded again, shortened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, TypeGuard

from models.engine.batch import Hypothesis
from models.engine.submission import Pending, SentenceTimings
from models.errors import Cancelled, DeadlineExceeded, ModelError, Overloaded, Unavailable
from models.translation.draft import Tokens

_LONGEST = 32  # the most tokens in a repeated phrase, which bounds the search for one
_NO_REPEAT = 3  # the no_repeat_ngram of a runaway's second try


class Decoded(NamedTuple):
    """The hypotheses of a sentence, the best first. `repeated`: whether its first try was a runaway."""

    hypotheses: list[Hypothesis]
    repeated: bool = False

    @property
    def best(self) -> Hypothesis:
        return self.hypotheses[0]


def decode(
    sentences: Iterable[Tokens],
    submit: Callable[..., Pending],
    until: float,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[dict[Tokens, Decoded | ModelError], SentenceTimings]:
    """Decodes all sentences at once, equal ones only once; then decodes runaways again, with repetition forbidden. If
    the second try fails, the first one is shortened.

    `submit(tokens)` and `submit(tokens, no_repeat_ngram=n)` submit a sentence to the engine. Sentences without an
    outcome at `until`, a time of the `clock`, fail with DeadlineExceeded. Raises Overloaded, Unavailable and Cancelled
    for the call as a whole. The timings are the longest of any sentence in the first try, plus those of the second try.
    """
    pendings = {tokens: submit(tokens) for tokens in dict.fromkeys(sentences)}
    outcomes = {tokens: _wait(pending, until, clock) for tokens, pending in pendings.items()}
    runaways = {tokens: first for tokens, first in outcomes.items() if _is_runaway(first, tokens)}
    retries: dict[Tokens, Pending] = {}
    with suppress(Overloaded):  # the first try is shortened then
        for tokens in runaways:
            retries[tokens] = submit(tokens, no_repeat_ngram=_NO_REPEAT)
    for tokens, first in runaways.items():
        second = _wait(retries[tokens], until, clock) if tokens in retries else first
        if isinstance(second, ModelError) or second.best.finish_reason == "length" or _is_runaway(second, tokens):
            second = Decoded([replace(found, tokens=shorten(found.tokens)) for found in first.hypotheses])
        outcomes[tokens] = second._replace(repeated=True)
    return outcomes, _longest(pendings.values(), retries.values())


def _is_runaway(outcome: Decoded | ModelError, source: Tokens) -> TypeGuard[Decoded]:
    return isinstance(outcome, Decoded) and runs_away(
        outcome.best.tokens, source, ended=outcome.best.finish_reason == "eos"
    )


def _longest(*rounds: Collection[Pending]) -> SentenceTimings:
    """The longest times of a sentence in each round, added up because the rounds follow one another."""
    timings = [[pending.timings for pending in pendings] for pendings in rounds if pendings]
    return SentenceTimings(
        wait=sum(max(timing.wait for timing in taken) for taken in timings),
        prefill=sum(max(timing.prefill for timing in taken) for taken in timings),
        decode=sum(max(timing.decode for timing in taken) for taken in timings),
    )


def _wait(pending: Pending, until: float, clock: Callable[[], float]) -> Decoded | ModelError:
    """Waits, until the time `until` at the latest, for the outcome of a sentence. Raises the errors that concern the
    whole call, and returns others."""
    try:
        return Decoded(pending.result(None if until == math.inf else max(0.0, until - clock())))
    except TimeoutError:
        return DeadlineExceeded("The deadline passed before the translation was complete.")
    except (Overloaded, Unavailable, Cancelled):
        raise
    except ModelError as error:
        return error


class Loop(NamedTuple):
    """The `period` tokens at `start` occur `times` times in a row; a last, partial repetition does not count."""

    start: int
    period: int
    times: int


def longest_loop(tokens: Sequence[int]) -> Loop:
    """The loop with the most repetitions, and of these the longest; `Loop(0, 1, 1)` if nothing repeats."""
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
    """Whether `target` repeats tokens three times in a row (a single token four times) without a reason in `source`.

    It has a reason if it `ended` by itself, and the source repeats itself at least half as often. If the length limit
    cut it off, it has none.
    """
    loop = longest_loop(target)
    return loop.times > (2 if loop.period > 1 else 3) and (not ended or loop.times > 2 * longest_loop(source).times)


def shorten(tokens: Sequence[int]) -> tuple[int, ...]:
    """The tokens with every loop of three or more repetitions replaced by one repetition."""
    shorter = tuple(tokens)
    while (loop := longest_loop(shorter)).times > 2:
        end = loop.start + loop.times * loop.period
        shorter = shorter[: loop.start + loop.period] + shorter[end:]
    return shorter
