"""Runaway repetition, when the decoder repeats a few tokens over and over: it is detected, decoded again, shortened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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


class Decoding:
    """Decodes sentences at once, equal ones only once; then decodes runaways again, with repetition forbidden. If the
    second try fails, the first one is shortened. Nothing here waits."""

    def __init__(
        self,
        sentences: Iterable[Tokens],
        submit: Callable[..., Pending],
        ready: Callable[[], object],
        others: Callable[[Mapping[Tokens, Decoded | ModelError]], Iterable[Tokens]] = lambda _: (),
    ) -> None:
        """`submit(tokens)` and `submit(tokens, no_repeat_ngram=n)` submit a sentence to the engine. `ready` is called
        in a thread of the engine when all first tries have ended, and again when all second tries have. `others` says,
        by the outcomes of first tries, what is decoded along with the second tries; runaways are no outcomes for it.
        Raises what `submit` raises."""
        self._submit, self._ready, self._find_others = submit, ready, others
        self._others: dict[Tokens, Pending] = {}
        self._first = {tokens: submit(tokens) for tokens in dict.fromkeys(sentences)}
        self._second: dict[Tokens, Pending] | None = None  # None before the second tries
        _when_ended(iter(self._first.values()), ready)

    def finish(self, *, late: bool) -> tuple[dict[Tokens, Decoded | ModelError], SentenceTimings] | None:
        """The outcome of each sentence; None if second tries have begun, after which `ready` is called again.

        If it is `late`, sentences without an outcome fail with DeadlineExceeded. Raises Overloaded, Unavailable and
        Cancelled for the call as a whole. The timings are the longest of any sentence in the first try, plus those of
        the second try.
        """
        outcomes = {tokens: _outcome(pending) for tokens, pending in self._first.items()}
        runaways = {tokens: first for tokens, first in outcomes.items() if _is_runaway(first, tokens)}
        if self._second is None:
            self._second = {}
            others = (
                () if late else self._find_others({each: outcomes[each] for each in outcomes if each not in runaways})
            )
            wanted = [tokens for tokens in dict.fromkeys(others) if tokens not in self._first]
            if (runaways or wanted) and not late:
                with suppress(Overloaded):  # the first try is shortened then
                    for tokens in runaways:
                        self._second[tokens] = self._submit(tokens, no_repeat_ngram=_NO_REPEAT)
                    for tokens in wanted:
                        self._others[tokens] = self._submit(tokens)
                _when_ended(iter([*self._second.values(), *self._others.values()]), self._ready)
                return None
        for tokens, first in runaways.items():
            second = _outcome(self._second[tokens]) if tokens in self._second else first
            if isinstance(second, ModelError) or second.best.finish_reason == "length" or _is_runaway(second, tokens):
                second = Decoded([replace(found, tokens=shorten(found.tokens)) for found in first.hypotheses])
            outcomes[tokens] = second._replace(repeated=True)
        for tokens, pending in self._others.items():
            outcomes[tokens] = _outcome(pending)
            if _is_runaway(other := outcomes[tokens], tokens):
                outcomes[tokens] = Decoded([replace(found, tokens=shorten(found.tokens)) for found in other.hypotheses])
        return outcomes, _longest(self._first.values(), [*self._second.values(), *self._others.values()])


def _when_ended(pendings: Iterator[Pending], then: Callable[[], object]) -> None:
    """Calls `then` when all have ended: it waits for one at a time, so that no lock is needed."""
    pending = next((each for each in pendings if not each.done()), None)
    if pending is None:
        then()
    else:
        pending.add_done_callback(lambda _: _when_ended(pendings, then))


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


def _outcome(pending: Pending) -> Decoded | ModelError:
    """The outcome of a sentence; DeadlineExceeded if it has none yet. Raises the errors that concern the whole call,
    and returns others."""
    if not pending.done():
        return DeadlineExceeded("The deadline passed before the translation was complete.")
    try:
        return Decoded(pending.result())
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
    if max(Counter(target).values(), default=0) < 3:  # most translations end here, quickly
        return False
    loop = longest_loop(target)
    return loop.times > (2 if loop.period > 1 else 3) and (not ended or loop.times > 2 * longest_loop(source).times)


def shorten(tokens: Sequence[int]) -> tuple[int, ...]:
    """The tokens with every loop of three or more repetitions replaced by one repetition."""
    shorter = tuple(tokens)
    while (loop := longest_loop(shorter)).times > 2:
        end = loop.start + loop.times * loop.period
        shorter = shorter[: loop.start + loop.period] + shorter[end:]
    return shorter
