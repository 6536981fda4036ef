"""The seam between the web tier and whatever translates: one protocol, and an implementation that needs no broker."""

from __future__ import annotations

import time
from typing import Protocol

from app.monitoring.status import RecentErrors, Status, total
from app.translation import pivot
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import AlternativeResult, SentenceResult, TextResult, TranslateReply
from tasks.contract.request import TranslateRequest


class Translator(Protocol):
    """What the web tier calls. Safe to call from many threads at once."""

    def translate(self, request: TranslateRequest, request_id: str, *onward: TranslateRequest) -> TranslateReply:
        """The reply to `request`, with one result per text, in order; returns or raises by `request.deadline`.

        Where models lead to the target together, `onward` are the legs after the first, as app.translation.pivot
        has them.
        `cancel` names it by `request_id` and its principal. Raises TolkError for the request's own trouble, BAD_INPUT
        where this process has such a request in flight.
        """

    def cancel(self, request_id: str, principal: str | None) -> bool:
        """Ends a request of this principal, whichever web process has it: its `translate` raises CANCELLED.

        False, after half a second, where none is in flight. Raises TolkError(UNAVAILABLE).
        """

    def abandon(self, request_id: str, principal: str | None) -> None:
        """Nobody waits for this request any more: `cancel` for what this process has, at once. Others are ignored."""

    def check(self) -> None:
        """Raises TolkError(UNAVAILABLE), which says what does not answer, when a request would find nobody."""

    def status(self) -> Status:
        """What queues and workers do, and what callers were told of late; at most a few seconds in the making."""

    def known_status(self) -> Status:
        """What `status` said last, some seconds ago at most, or nothing: at once."""

    def told(self, code: Code, request_id: str) -> None:
        """A caller was told this; from now on it counts in the status, whichever process makes that."""

    def close(self) -> None:
        """Lets go of connections and threads; requests still in flight fail with UNAVAILABLE."""


class EchoTranslator:
    """Answers at once with each text as its own translation, so that the web tier runs without a broker."""

    def __init__(self) -> None:
        self._closed = False
        self.errors = RecentErrors()

    def translate(
        self,
        request: TranslateRequest,
        request_id: str,  # noqa: ARG002 - the protocol's; an echo is over before it could be cancelled
        *onward: TranslateRequest,
    ) -> TranslateReply:
        return pivot.translate(request, onward, self._echo)

    def _echo(self, request: TranslateRequest) -> TranslateReply:
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

    def told(self, code: Code, request_id: str) -> None:
        self.errors.add(code, request_id)

    def status(self) -> Status:
        return Status(errors=total(self.errors.counts()))

    def known_status(self) -> Status:
        return self.status()

    def close(self) -> None:
        self._closed = True
