"""What translations cost their callers, and that each is paid for once."""

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
    """So many `characters` that the caller with this key was charged for on a `day`, counted from 1970."""

    key: Key
    characters: int
    day: int


class Ledger:
    """Charges callers, and gives back what failed. Thread-safe.

    `charge` and `claim` raise TolkError where the database is at fault: UNAVAILABLE, or TIMEOUT where it has not
    answered by the request's deadline. `give_back`, `settle` and `release` hold an answer up for half a second at most,
    and raise nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def charge(self, key: Key, characters: int, deadline: float) -> Charge:
        """Counts a request, and its characters. Raises TolkError: RATE_LIMITED, or BAD_INPUT for what no day allows."""
        charge = Charge(key, characters, quotas.today())
        self._database.run(lambda connection: quotas.charge(connection, key, characters, charge.day), until=deadline)
        return charge

    def give_back(self, charge: Charge) -> None:
        """Of what was charged, the characters that were not translated."""
        self._database.settle(
            lambda connection: quotas.refund(connection, charge.key.principal, charge.characters, charge.day)
        )

    def claim(self, wanted: Claim, key: Key | None) -> Claim | Answered | Running:
        """`wanted` or the claim of one who abandoned it, for this caller to make; or what another has made, or makes.

        Counts a request, and the characters of `wanted` where it is returned. Raises TolkError: BAD_INPUT where the
        idempotency key stands for another input, and what `charge` raises; nothing is claimed then.
        """

        def claim(connection: Connection) -> Claim | Answered | Running:
            _give_back_abandoned(connection)
            found = idempotency.claim(connection, wanted)
            if key is not None:
                quotas.charge(connection, key, wanted.charged if found is wanted else 0, wanted.charged_day)
            return found

        return self._database.run(claim, until=wanted.deadline)

    def claim_again(self, wanted: Claim, key: Key | None) -> Claim | Answered | Running:
        """`claim` for a caller who has waited while another made the request: it is counted as a request already."""

        def claim(connection: Connection) -> Claim | Answered | Running:
            found = idempotency.claim(connection, wanted)
            if key is not None and found is wanted:
                quotas.charge(connection, key, wanted.charged, wanted.charged_day, request=False)
            return found

        return self._database.run(claim, until=wanted.deadline)

    def settle(self, claim: Claim, answer: object, failed: int) -> None:
        """What was claimed has this answer, builtins for JSON; so many characters of it failed, and are given back."""

        def settle(connection: Connection) -> None:
            if idempotency.store(connection, claim, answer):
                _give_back(connection, replace(claim, charged=failed))

        self._database.settle(settle)

    def release(self, claim: Claim) -> None:
        """What was claimed has failed: it is given back, and who repeats it makes it anew."""

        def release(connection: Connection) -> None:
            if idempotency.release(connection, claim):
                _give_back(connection, claim)

        self._database.settle(release)

    def used(self, key: Key) -> Usage:
        """What a key has used today, without what was abandoned. Raises TolkError(UNAVAILABLE)."""

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
