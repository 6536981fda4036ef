"""Charges callers for translations, each translation once."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from app.accounts import idempotency, quotas
from app.accounts.idempotency import Answered, Claim, Running
from app.accounts.keys import Key
from app.accounts.quotas import Usage
from app.database.transactions import Database


class Ledger:
    """Charges callers, and refunds what failed. Thread-safe.

    If the database fails, `claim` and `count` raise TolkError: UNAVAILABLE, or TIMEOUT if it has not answered by the
    request's deadline. `settle` and `release` delay an answer by half a second at most, and raise nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

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

    def settle(self, claim: Claim, answer: object, failed: int, outstanding: int) -> None:
        """Stores the answer of a claimed request, in the types that JSON has, and refunds its `failed` characters.
        `outstanding` of these failed for a reason that may pass."""

        def settle(connection: Connection) -> None:
            if idempotency.store(connection, claim, answer, outstanding):
                _give_back(connection, replace(claim, charged=failed))

        self._database.settle(settle)

    def release(self, claim: Claim, failed: int | None = None) -> None:
        """Ends a claimed request without an answer to keep, and refunds its `failed` characters, by default all. If
        there are none, returns at once."""
        refund = claim if failed is None else replace(claim, charged=failed)

        def release(connection: Connection) -> None:
            if idempotency.release(connection, claim):
                _give_back(connection, refund)

        self._database.settle(release, wait=failed != 0)

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
