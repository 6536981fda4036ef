"""What a translation costs its caller, and that it is made and paid for once."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from app.accounts import idempotency, quotas
from app.accounts.idempotency import Answered, Claim, Running
from app.accounts.keys import Key
from app.accounts.quotas import Usage
from app.database.transactions import Database
from app.translation.translator import Translator
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest

JOIN = (0.05, 0.25)  # seconds between two looks at a request that somebody else makes, at first and at most
PASSING = {Code.TIMEOUT, Code.INTERNAL}  # a text's trouble that another try may not have


@dataclass(frozen=True, slots=True)
class Once:
    """An idempotency key, and the hash of the input that it stands for."""

    key: str
    input_hash: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, and the id of the request that it was first given to."""

    reply: TranslateReply
    request_id: str


class Accounts:
    """Translates for callers: charges them, makes what has an idempotency key once, gives back what failed."""

    def __init__(self, database: Database, translator: Translator) -> None:
        self._database = database
        self._translator = translator
        # Set when their callers hang up: of those who wait for a request that somebody else makes, by principal and id.
        self._joined: dict[tuple[str | None, str], threading.Event] = {}

    def translate(
        self, request: TranslateRequest, request_id: str, key: Key | None, once: Once | None, *onward: TranslateRequest
    ) -> Answer:
        """Raises TolkError: RATE_LIMITED, and the translator's. Without `key` and `once` no database is needed."""
        if once is not None:
            return self._translate_once(request, request_id, key, once, *onward)
        if key is not None:
            return Answer(self._translate_charged(request, request_id, key, *onward), request_id)
        return Answer(self._translator.translate(request, request_id, *onward), request_id)

    def abandon(self, request_id: str, principal: str | None) -> None:
        """Nobody waits for this request any more: its `translate` raises CANCELLED. Returns at once."""
        if gone := self._joined.get((principal, request_id)):
            gone.set()
        else:
            self._translator.abandon(request_id, principal)

    def used(self, key: Key) -> Usage:
        """What a key has used today. Raises TolkError(UNAVAILABLE)."""

        def use(connection: Connection) -> Usage:
            _sweep(connection)
            return quotas.used(connection, key)

        return self._database.run(use)

    def _translate_charged(
        self, request: TranslateRequest, request_id: str, key: Key, *onward: TranslateRequest
    ) -> TranslateReply:
        characters, day = sum(map(len, request.texts)), quotas.today()
        self._database.run(lambda connection: quotas.charge(connection, key, characters, day), until=request.deadline)
        try:
            reply = self._translator.translate(request, request_id, *onward)
        except BaseException:
            self._database.settle(lambda connection: quotas.refund(connection, key.principal, characters, day))
            raise
        if failed := _failed(request, reply):
            self._database.settle(lambda connection: quotas.refund(connection, key.principal, failed, day))
        return reply

    def _translate_once(
        self, request: TranslateRequest, request_id: str, key: Key | None, once: Once, *onward: TranslateRequest
    ) -> Answer:
        gone = self._joined[request.principal, request_id] = threading.Event()
        try:
            claim = self._claim(request, request_id, key, once, gone)
        finally:
            self._joined.pop((request.principal, request_id), None)  # ids are the callers': perhaps not alone in it
        if isinstance(claim, Answered):
            return Answer(TranslateReply.decode(json.loads(claim.answer)), claim.request_id)

        def release(connection: Connection) -> None:
            if idempotency.release(connection, claim):
                _refund(connection, claim)

        def store(connection: Connection) -> None:
            if idempotency.store(connection, claim, json.dumps(reply.encode())):
                _refund(connection, replace(claim, charged=_failed(request, reply)))

        try:
            reply = self._translator.translate(request, request_id, *onward)
        except BaseException:
            self._database.settle(release)
            raise
        passing = any(result.error is not None and result.error.code in PASSING for result in reply.results)
        self._database.settle(release if passing else store)
        return Answer(reply, request_id)

    def _claim(
        self, request: TranslateRequest, request_id: str, key: Key | None, once: Once, gone: threading.Event
    ) -> Claim | Answered:
        """The request for this caller to make, or its answer, for which he may have to wait. Counts it as one."""
        principal, day = request.principal or "", quotas.today()
        wanted = Claim(principal, once.key, request_id, request.deadline, sum(map(len, request.texts)), day)
        counted = False

        def claim(connection: Connection) -> Claim | Answered | Running:
            if not counted:
                _sweep(connection)
            found = idempotency.claim(connection, wanted, once.input_hash)
            if key is not None and (found is wanted or not counted):
                quotas.charge(connection, key, wanted.charged if found is wanted else 0, day, request=not counted)
            return found

        pause = JOIN[0]
        while isinstance(found := self._database.run(claim, until=request.deadline), Running):
            counted = True
            if time.time() + pause >= request.deadline:
                raise TolkError(Code.TIMEOUT, "Another request with this idempotencyKey still runs. Send it again.")
            if gone.wait(pause):
                raise TolkError(Code.CANCELLED, "The client has hung up.")
            pause = min(2 * pause, JOIN[1])
        return found


def _sweep(connection: Connection) -> None:
    for abandoned in idempotency.sweep(connection):
        _refund(connection, abandoned)


def _refund(connection: Connection, claim: Claim) -> None:
    if claim.principal and claim.charged:
        quotas.refund(connection, claim.principal, claim.charged, claim.charged_day)


def _failed(request: TranslateRequest, reply: TranslateReply) -> int:
    """Characters of the texts that were not translated."""
    return sum(len(text) for text, result in zip(request.texts, reply.results, strict=True) if result.error is not None)
