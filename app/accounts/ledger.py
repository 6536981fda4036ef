"""Charges callers for translations, each translation once."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from dataclasses import replace

from sqlalchemy import Connection

from app.accounts import idempotency, quotas
from app.accounts.idempotency import Answered, Claim, Running
from app.accounts.keys import Key
from app.accounts.quotas import Usage
from app.database.transactions import Database

SWEEP = 1.0  # seconds between two sweeps by requests without an idempotency key
GATHER = 0.2  # seconds for which leases that ended wait for others, to be deleted together


class Ledger:
    """Charges callers, and refunds what failed. Thread-safe.

    If the database fails, `claim`, `lease` and `count` raise TolkError: UNAVAILABLE, or TIMEOUT if it has not answered
    by the request's deadline. `settle` and `release` delay an answer by half a second at most, and raise nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sweeps_at = -math.inf  # in seconds of time.monotonic
        self._lock = threading.Lock()  # guards the next fields
        self._ended: list[Claim] = []  # leases that are still to be deleted
        self._is_ending = False

    def claim(self, wanted: Claim, key: Key | None, *, again: bool = False) -> Claim | Answered | Running:
        """Claims a request. Returns a Claim if this caller has to execute the request: `wanted`, or one that an earlier
        caller has left. Otherwise returns the answer, or Running.

        Charges a request, unless this is done `again` after a wait for another caller's answer, and the characters of
        the claim if they are unpaid. Raises TolkError, with nothing claimed: RATE_LIMITED, or BAD_INPUT if the
        characters exceed the limit of a whole day, or if the idempotency key was used with another input.
        """

        def claim(connection: Connection) -> Claim | Answered | Running:
            if not again:
                _give_back_abandoned(connection)
            found = idempotency.claim(connection, wanted)
            due = found.charged if isinstance(found, Claim) and found.unpaid else 0
            if key is not None and (due or not again):
                quotas.charge(connection, key, due, wanted.charged_day, request=not again)
            return found

        return self._database.run(claim, until=wanted.deadline)

    def count(self, key: Key, until: float) -> None:
        """Charges a request without characters, by `until` in Unix seconds. Raises TolkError as `claim` does."""
        self._database.run(lambda connection: quotas.charge(connection, key, 0, quotas.today()), until=until)

    def lease(self, wanted: Claim, key: Key) -> Claim:
        """Charges a request without an idempotency key, and its characters, and returns `wanted`, its lease. Raises
        what `claim` raises."""
        sweeps, now = False, time.monotonic()
        if now >= self._sweeps_at:
            sweeps, self._sweeps_at = True, now + SWEEP

        def lease(connection: Connection) -> Claim:
            if sweeps:
                _give_back_abandoned(connection)
            quotas.charge(connection, key, wanted.charged, wanted.charged_day)
            idempotency.insert(connection, wanted)
            return wanted

        return self._database.run(lease, until=wanted.deadline)

    def end(self, lease: Claim) -> None:
        """Ends the lease of a request that was answered in full. Returns at once: leases are deleted together."""
        with self._lock:
            self._ended.append(lease)
            if not self._is_ending:
                with suppress(RuntimeError):  # no thread can be started now; the next lease tries again
                    threading.Timer(GATHER, self._delete_ended).start()  # the end of the process waits for it
                    self._is_ending = True

    def settle(self, claim: Claim, answer: object, failed: int, outstanding: int) -> None:
        """Stores the answer of a claimed request, in the types that JSON has, and refunds its `failed` characters.
        `outstanding` of these failed for a reason that may pass."""

        def settle(connection: Connection) -> None:
            if idempotency.store(connection, claim, answer, outstanding):
                _give_back(connection, replace(claim, charged=failed))

        self._database.settle(settle)

    def release(self, claim: Claim, failed: int | None = None) -> None:
        """Ends a claimed request, or one with a lease, without an answer to keep, and refunds its `failed` characters,
        by default all."""
        refund = claim if failed is None else replace(claim, charged=failed)

        def release(connection: Connection) -> None:
            if idempotency.release(connection, claim):
                _give_back(connection, refund)

        self._database.settle(release)

    def _delete_ended(self) -> None:
        with self._lock:
            ended, self._ended, self._is_ending = self._ended, [], False
        self._database.settle(lambda connection: idempotency.end(connection, ended))

    def used(self, key: Key) -> Usage:
        """What a key has used today, without abandoned requests. Raises TolkError(UNAVAILABLE)."""

        def used(connection: Connection) -> Usage:
            usage = quotas.used(connection, key)
            abandoned = idempotency.abandoned(connection, key.principal, quotas.today())
            return replace(usage, characters=usage.characters - abandoned)

        return self._database.run(used)


def _give_back_abandoned(connection: Connection) -> None:
    for abandoned in idempotency.sweep(connection):
        _give_back(connection, abandoned)


def _give_back(connection: Connection, claim: Claim) -> None:
    if claim.principal and claim.charged:
        quotas.refund(connection, claim.principal, claim.charged, claim.charged_day)
