"""Charges callers for translations, each translation once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Connection

from app.accounts import idempotency, quotas
from app.accounts.idempotency import Answered, Claim, Running
from app.accounts.keys import Key
from app.accounts.quotas import Usage
from app.database.transactions import Database


@dataclass(frozen=True, slots=True)
class Charge:
    """The number of `characters` that a key was charged for on a `day`, which is counted from 1970."""

    key: Key
    characters: int
    day: int


class Ledger:
    """Charges callers, and refunds what failed. Thread-safe.

    If the database fails, `charge` and `claim` raise TolkError: UNAVAILABLE, or TIMEOUT if it has not answered by the
    request's deadline. `give_back`, `settle` and `release` delay an answer by half a second at most, and raise nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def charge(self, key: Key, characters: int, deadline: float) -> Charge:
        """Charges a key for a request and its characters. Raises TolkError: RATE_LIMITED, or BAD_INPUT if the
        characters exceed the limit of a whole day."""
        charge = Charge(key, characters, quotas.today())
        self._database.run(lambda connection: quotas.charge(connection, key, characters, charge.day), until=deadline)
        return charge

    def give_back(self, charge: Charge) -> None:
        """Refunds the characters of a charge, because they were not translated."""
        self._database.settle(
            lambda connection: quotas.refund(connection, charge.key.principal, charge.characters, charge.day)
        )

    def claim(self, wanted: Claim, key: Key | None) -> Claim | Answered | Running:
        """Claims a request with an idempotency key. Returns a Claim if this caller has to execute the request:
        `wanted`, or one that an earlier caller charged and abandoned. Otherwise returns the answer, or Running.

        Charges a request, and the characters of `wanted` if that is returned. Raises TolkError, with nothing claimed:
        BAD_INPUT if the idempotency key was used with another input, and what `charge` raises.
        """

        def claim(connection: Connection) -> Claim | Answered | Running:
            _give_back_abandoned(connection)
            found = idempotency.claim(connection, wanted)
            if key is not None:
                quotas.charge(connection, key, wanted.charged if found is wanted else 0, wanted.charged_day)
            return found

        return self._database.run(claim, until=wanted.deadline)

    def claim_again(self, wanted: Claim, key: Key | None) -> Claim | Answered | Running:
        """`claim` for a caller that has waited for another one's answer: its request is charged already."""

        def claim(connection: Connection) -> Claim | Answered | Running:
            found = idempotency.claim(connection, wanted)
            if key is not None and found is wanted:
                quotas.charge(connection, key, wanted.charged, wanted.charged_day, request=False)
            return found

        return self._database.run(claim, until=wanted.deadline)

    def settle(self, claim: Claim, answer: object, failed: int) -> None:
        """Stores the answer of a claimed request, in the types that JSON has, and refunds its `failed` characters."""

        def settle(connection: Connection) -> None:
            if idempotency.store(connection, claim, answer):
                _give_back(connection, replace(claim, charged=failed))

        self._database.settle(settle)

    def release(self, claim: Claim) -> None:
        """Refunds a claimed request that has failed. A repeat executes it again."""

        def release(connection: Connection) -> None:
            if idempotency.release(connection, claim):
                _give_back(connection, claim)

        self._database.settle(release)

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
