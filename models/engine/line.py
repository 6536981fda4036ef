"""The sentences of one caller that wait, and which of them is next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from models.engine.shares import Shares


class Waiting(Protocol):
    """A sentence, as far as a line needs it: of which request it is, and when it came."""

    @property
    def group(self) -> str | None: ...
    @property
    def submitted(self) -> float: ...


S = TypeVar("S", bound=Waiting)


class Line(Generic[S]):
    """The sentences of one caller with one priority that wait. Its requests share what the caller gets."""

    def __init__(self) -> None:
        self.sentences: OrderedDict[S, None] = OrderedDict()  # in order of arrival
        self._requests: dict[Hashable, OrderedDict[S, None]] = {}
        self._shares: Shares[Hashable] = Shares()

    def add(self, sentence: S) -> None:
        self.sentences[sentence] = None
        key = _key(sentence)
        if key not in self._requests:
            self._requests[key] = OrderedDict()
            self._shares.join(key)
        self._requests[key][sentence] = None

    def next(self, now: float, aged_after: float) -> S:
        oldest = next(iter(self.sentences))
        if now - oldest.submitted > aged_after:
            return oldest
        return next(iter(self._requests[self._shares.first()]))

    def take(self, sentence: S, *, served: float | None = None) -> None:
        """Takes a sentence out; `served` is what that adds to what its request was served."""
        key = _key(sentence)
        if served is not None:
            self._shares.serve(key, served)
        del self.sentences[sentence], self._requests[key][sentence]
        if not self._requests[key]:
            del self._requests[key]
            self._shares.leave(key)


def _key(sentence: Waiting) -> Hashable:
    return id(sentence) if sentence.group is None else sentence.group
