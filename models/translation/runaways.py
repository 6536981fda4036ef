"""Runaway repetition, where the decoder says the same few tokens over and over: seen, tried again, shortened."""

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

_LONGEST = 32  # tokens in a repeated phrase; bounds the search
_NO_REPEAT = 3  # tokens; in the second try of a runaway no run of so many comes twice


class Decoded(NamedTuple):
    """What the model made of a sentence, the best first. `repeated` says whether its first try ran away."""

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
    """Puts all sentences through the engine at once, equal ones once; then those that ran away again, this time without
    repetition.

    `submit(tokens)` and `submit(tokens, no_repeat_ngram=n)` hand a sentence to the engine. What has no outcome at
    `until`, on the `clock`, fails with DeadlineExceeded. Raises Overloaded, Unavailable and Cancelled for the call
    as a whole. The timings are the longest of any sentence, those of the second try added to those of the first.
    """
    pendings = {tokens: submit(tokens) for tokens in dict.fromkeys(sentences)}
    outcomes = {tokens: _wait(pending, until, clock) for tokens, pending in pendings.items()}
    runaways = {tokens: first for tokens, first in outcomes.items() if _is_runaway(first, tokens)}
    retries: dict[Tokens, Pending] = {}
    with suppress(Overloaded):  # then the first try is shortened, as where the deadline ends the second
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
    """The longest that a sentence took in each round, added up: the rounds follow one another."""
    timings = [[pending.timings for pending in pendings] for pendings in rounds if pendings]
    return SentenceTimings(
        wait=sum(max(timing.wait for timing in taken) for taken in timings),
        prefill=sum(max(timing.prefill for timing in taken) for taken in timings),
        decode=sum(max(timing.decode for timing in taken) for taken in timings),
    )


def _wait(pending: Pending, until: float, clock: Callable[[], float]) -> Decoded | ModelError:
    """What became of a sentence; trouble that is the whole call's is raised. Nobody waits beyond `until`."""
    try:
        return Decoded(pending.result(None if until == math.inf else max(0.0, until - clock())))
    except TimeoutError:
        return DeadlineExceeded("The deadline passed before the translation was complete.")
    except (Overloaded, Unavailable, Cancelled):
        raise
    except ModelError as error:
        return error


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

    A source that repeats itself at least half as often is a reason, if the target `ended` by itself. Where the length
    limit cut it off there is none.
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
