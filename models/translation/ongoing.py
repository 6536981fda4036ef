"""Calls whose sentences the engine has, many at a time: each gets its outcome as soon as that is there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeVar

from models.errors import BadInput
from models.tokenizer import Tokenizer
from models.translation.draft import Draft
from models.translation.results import Translated, Translation, assemble
from models.translation.runaways import Decoding

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Ongoing:
    """A call whose sentences the engine has. Without an outcome at `until`, a time of the engine's clock, it is late.

    `cancel` ends its sentences. `tokens`: as in models.translation.results.Translated.
    """

    drafts: Sequence[Draft | BadInput]
    decoding: Decoding
    tokenizer: Tokenizer
    source: str
    target: str
    until: float
    cancel: Callable[[], object]
    tokens: float

    def finish(self, *, late: bool) -> Translated | None:
        """The outcome; None if second tries have begun. Raises what `Decoding.finish` raises."""
        if (decoded := self.decoding.finish(late=late)) is None:
            return None
        outcomes, timings = decoded
        results = (
            assemble(each, outcomes, self.tokenizer, source=self.source, target=self.target)
            if isinstance(each, Draft)
            else Translation(error=each)
            for each in self.drafts
        )
        return Translated(tuple(results), timings, self.tokens)


def finished(
    calls: dict[K, Ongoing], ready: SimpleQueue[K], clock: Callable[[], float] = time.monotonic
) -> Iterator[tuple[K, Translated | Exception]]:
    """Takes each call out of `calls` as soon as it has an outcome, and yields its key and the outcome.

    `ready` receives a call's key when its sentences are decoded, from a thread of the engine.
    """
    while calls:
        first = min(calls, key=lambda key: calls[key].until)
        until = calls[first].until
        try:
            key, late = ready.get(timeout=None if until == math.inf else max(0.0, until - clock())), False
        except Empty:
            key, late = first, True
        if (call := calls.get(key)) is None:  # it was late, so that nobody waits for it any more
            continue
        outcome: Translated | Exception | None
        try:
            outcome = call.finish(late=late)
        except Exception as error:  # noqa: BLE001 - one call's error must not end the others
            outcome = error
            call.cancel()
        if outcome is not None:
            del calls[key]
            yield key, outcome
