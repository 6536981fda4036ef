"""The seam between the web tier and whatever translates: what the tier calls, and an echo that needs no broker."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from app.monitoring.status import Status
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import AlternativeResult, SentenceResult, TextResult, TranslateReply
from tasks.contract.request import TranslateRequest


class Flight(Protocol):
    """A caller's request while its models are asked, one after the other: each is a leg of it."""

    def ask(self, request: TranslateRequest) -> TranslateReply:
        """The reply of one model, with one result per text, in order; returns or raises by `request.deadline`.

        Raises TolkError for the request's own trouble, and where the flight was ended: CANCELLED, UNAVAILABLE.
        """


class Translator(Protocol):
    """What the web tier calls. Safe to call from many threads at once."""

    def begin(self, request_id: str, principal: str | None) -> AbstractContextManager[Flight]:
        """A flight that lasts until its context is left; `cancel` and `abandon` end it, between its legs too.

        To enter raises TolkError(BAD_INPUT) where this process has a flight of the same id and principal; to leave
        raises why it was ended, where it was.
        """

    def cancel(self, request_id: str, principal: str | None) -> bool:
        """Ends a flight of this principal with CANCELLED, whichever web process has it.

        False, after half a second, where there is none. Raises TolkError(UNAVAILABLE).
        """

    def abandon(self, request_id: str, principal: str | None) -> None:
        """Nobody waits for this flight any more: `cancel` for what this process has, at once. Others are ignored."""

    def check(self) -> None:
        """Raises TolkError(UNAVAILABLE), which says what does not answer, when a request would find nobody."""

    def status(self) -> Status:
        """What queues, workers and other web processes do; at most a few seconds in the making."""

    def known_status(self) -> Status:
        """What `status` said last, some seconds ago at most, or nothing: at once."""

    def listen(self) -> None:
        """From now on other web processes can ask this one what it does, whatever becomes of its requests. At once."""

    def close(self) -> None:
        """Lets go of connections and threads; flights end with UNAVAILABLE."""


class EchoTranslator:
    """Answers at once with each text as its own translation, so that the web tier runs without a broker.

    Each of its legs is over before it could be cancelled, so it has nothing to keep of a flight, and is every one's.
    """

    def __init__(self) -> None:
        self._closed = False

    def begin(self, request_id: str, principal: str | None) -> AbstractContextManager[Flight]:  # noqa: ARG002 - nothing is kept
        return nullcontext(self)

    def ask(self, request: TranslateRequest) -> TranslateReply:
        if self._closed:
            raise TolkError(Code.UNAVAILABLE, "The service is shutting down. Try again.")
        if time.time() >= request.deadline:
            raise TolkError(Code.TIMEOUT, "The deadline passed before the translation began. Allow more time.")
        results = tuple(
            TextResult(
                text=text,
                score=0.0 if text.strip() else None,
                sentences=(SentenceResult((0, len(text)), (0, len(text)), 0.0),) if text.strip() else (),
                alternatives=tuple(AlternativeResult(text, 0.0) for _ in range(request.options.nbest - 1)),
            )
            for text in request.texts
        )
        return TranslateReply(model=request.model, version="echo", worker="echo", results=results)

    def cancel(self, request_id: str, principal: str | None) -> bool:  # noqa: ARG002 - nothing is ever in flight
        return False

    def abandon(self, request_id: str, principal: str | None) -> None:
        """Nothing is ever in flight."""

    def check(self) -> None:
        if self._closed:
            raise TolkError(Code.UNAVAILABLE, "The service is shutting down. Try again.")

    def listen(self) -> None:
        """Nobody asks."""

    def status(self) -> Status:
        return Status()

    def known_status(self) -> Status:
        return self.status()

    def close(self) -> None:
        self._closed = True
