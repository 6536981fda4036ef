"""The interface between the web tier and what translates, and an echo that implements it without a broker."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from app.monitoring.status import Status
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import AlternativeResult, SentenceResult, TextResult, TranslateReply
from tasks.contract.request import HONOURED, TranslateRequest


class Flight(Protocol):
    """A caller's request in flight. Its models are asked one after the other; each is a leg of it."""

    def ask(self, request: TranslateRequest) -> TranslateReply:
        """The reply of one model, with one result for each text, in order. Returns or raises by `request.deadline`.

        Raises TolkError for an error of the request, and if the flight was ended: CANCELLED or UNAVAILABLE.
        """


class Translator(Protocol):
    """What the web tier uses to translate. Thread-safe."""

    def begin(self, request_id: str, principal: str | None, caller: str = "") -> AbstractContextManager[Flight]:
        """A flight that lasts until its context is left. `cancel` and `abandon` end it, also between its legs.

        It takes a place of `caller` (app.accounts.auth.caller).

        Entering the context raises TolkError(BAD_INPUT) if this process has a flight with the same id and principal.
        Leaving it raises the TolkError that ended the flight, if it was ended.
        """

    def cancel(self, request_id: str, principal: str | None) -> bool:
        """Ends a flight of this principal with CANCELLED, whichever web process has it, and returns True.

        Returns False after half a second if there is none. Raises TolkError(UNAVAILABLE).
        """

    def abandon(self, request_id: str, principal: str | None) -> None:
        """Ends a flight of this process with CANCELLED, if there is one, because its client has gone. Returns at
        once."""

    def check(self) -> None:
        """Raises TolkError(UNAVAILABLE), which says what does not answer, if no request could be translated now."""

    def status(self) -> Status:
        """The status of queues, workers and other web processes. Takes a few seconds at most."""

    def known_status(self) -> Status:
        """The latest result of `status`, if it is only seconds old, or an empty status. Returns at once."""

    def listen(self) -> None:
        """From now on, this process answers the questions of other web processes. Returns at once."""

    def close(self) -> None:
        """Closes connections and ends threads. Flights end with UNAVAILABLE."""


class EchoTranslator:
    """Answers at once, with each text as its own translation, so that the web tier runs without a broker.

    Its legs end before anybody could cancel them, so it keeps no state for a flight, and serves as every one.
    """

    def __init__(self) -> None:
        self._closed = False

    def begin(self, request_id: str, principal: str | None, caller: str = "") -> AbstractContextManager[Flight]:  # noqa: ARG002 - it keeps no state
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
        return TranslateReply(model=request.model, version="echo", worker="echo", results=results, honoured=HONOURED)

    def cancel(self, request_id: str, principal: str | None) -> bool:  # noqa: ARG002 - nothing is ever in flight
        return False

    def abandon(self, request_id: str, principal: str | None) -> None:
        """Nothing is ever in flight."""

    def check(self) -> None:
        if self._closed:
            raise TolkError(Code.UNAVAILABLE, "The service is shutting down. Try again.")

    def listen(self) -> None:
        """There is nothing to answer."""

    def status(self) -> Status:
        return Status()

    def known_status(self) -> Status:
        return self.status()

    def close(self) -> None:
        self._closed = True
