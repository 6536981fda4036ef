"""Requests that are executed once, however often they are sent: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/

The table has one row for each idempotency key of a principal, with a hash of the input. A row without an answer is a
request that is running or, if its deadline has passed, one that was abandoned. A row with `outstanding` characters has
an answer some of whose texts failed for a reason that may pass: a repeat translates these alone. While it does, the
answer before is `delivered`.

A request without an idempotency key that is charged has a row while it runs, too, its lease: so another process gives
back what it was charged for if its own process dies.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.database.tables import idempotent_request as table
from tasks.contract.errors import Code, TolkError

ANSWER_LASTS = 24 * 3600.0  # seconds for which a repeat gets the same answer
ABANDONED = 5.0  # seconds after its deadline that an unanswered request is kept for a repeat
MAX_CHARACTERS = 255  # of an idempotency key


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that this caller has to execute by `deadline`, in Unix seconds.

    `key` is its idempotency key, or the name of its lease. `charged` characters are charged for it on `charged_day`; if
    not `unpaid`, an earlier caller, who abandoned it, was charged for them. `delivered` is the answer that earlier
    callers got, in the types that JSON has, if only the texts that failed in it are to be translated."""

    principal: str
    key: str
    input_hash: str
    request_id: str
    deadline: float
    charged: int
    charged_day: int
    unpaid: bool = True
    delivered: object = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The first answer, in the types that JSON has, and the id of the request that got it first."""

    request_id: str
    answer: object


@dataclass(frozen=True, slots=True)
class Running:
    """Another caller is executing the request."""


def check_key(key: str) -> None:
    """Raises TolkError(BAD_INPUT) if the idempotency key is empty, too long, or not printable."""
    if not 1 <= len(key) <= MAX_CHARACTERS or not key.isprintable():
        raise TolkError(
            Code.BAD_INPUT, f"idempotencyKey: 1 to {MAX_CHARACTERS} printable characters were expected, such as a UUID."
        )


def lease() -> str:
    """The name of the lease of a request without an idempotency key. No caller can send it."""
    return f"\n{uuid4()}"


def hash_input(
    texts: Sequence[str | Sequence[str]],
    source: str | None,
    target: str,
    model: str | None,
    assume: str | None = None,
    nbest: int = 1,
    lines: str = "keep",
    held: Sequence[str] = (),
) -> str:
    """A hash of the input. The timeout is not part of it. A text that is too long is given as a list of one. `held`:
    what has to come through, if that is not the default. A request without the later options has the hash that earlier
    releases gave it."""
    options: list[object] = [assume, nbest] if (assume, nbest, lines, *held) != (None, 1, "keep") else []
    options += [lines] if lines != "keep" or held else []
    options += [list(held)] if held else []
    return hashlib.sha256(json.dumps([list(texts), source, target, model, *options]).encode()).hexdigest()


def claim(connection: Connection, wanted: Claim) -> Claim | Answered | Running:
    """Claims the request `wanted`. Returns `wanted` itself if the request is new, another Claim if it was abandoned or
    if texts of its answer are to be translated again, its answer if there is one, or Running.

    Raises TolkError(BAD_INPUT) if the idempotency key was used with another input.
    """
    now = time.time()
    row = connection.execute(select(table).where(_is(wanted), table.c.created > now - ANSWER_LASTS)).one_or_none()
    if row is None:
        return wanted if insert(connection, wanted) else Running()
    if row.input_hash != wanted.input_hash:
        raise TolkError(
            Code.BAD_INPUT,
            "idempotencyKey: it was used with other texts, languages or options. A new request needs a new key.",
        )
    if row.answer is not None and not row.outstanding:
        return Answered(row.request_id, json.loads(row.answer))
    taken: dict[str, Any] = {"request_id": wanted.request_id, "deadline": wanted.deadline}
    free: ColumnElement[bool]
    if row.answer is not None:
        mine = replace(wanted, charged=row.outstanding, delivered=json.loads(row.answer))
        taken |= {"answer": None, "delivered": row.answer, "charged": mine.charged, "charged_day": mine.charged_day}
        free = table.c.answer.is_not(None)
    else:
        delivered = row.delivered and json.loads(row.delivered)
        mine = replace(wanted, charged=row.charged, charged_day=row.charged_day, unpaid=False, delivered=delivered)
        free = table.c.answer.is_(None) & (table.c.deadline <= now)
    took = connection.execute(update(table).where(_is(wanted), free).values(taken))
    return mine if took.rowcount else Running()


def insert(connection: Connection, wanted: Claim) -> bool:
    """Inserts the row of a claim, or of a lease. Returns False if another caller was faster."""
    values = {
        "principal": wanted.principal,
        "idempotency_key": wanted.key,
        "input_hash": wanted.input_hash,
        "request_id": wanted.request_id,
        "deadline": wanted.deadline,
        "created": time.time(),
        "charged": wanted.charged,
        "charged_day": wanted.charged_day,
    }
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    inserted = make(table).values(values).on_conflict_do_nothing().returning(table.c.id)
    return connection.scalar(inserted) is not None


def sweep(connection: Connection) -> list[Claim]:
    """Deletes answers that are too old to be repeated, and releases abandoned requests; returns the latter."""
    now = time.time()
    connection.execute(delete(table).where(table.c.created <= now - ANSWER_LASTS))
    rows = connection.execute(select(table).where(_is_abandoned(now)).with_for_update()).all()
    abandoned = [
        Claim(
            principal=row.principal,
            key=row.idempotency_key,
            input_hash=row.input_hash,
            request_id=row.request_id,
            deadline=row.deadline,
            charged=row.charged,
            charged_day=row.charged_day,
            delivered=row.delivered and json.loads(row.delivered),
        )
        for row in rows
    ]
    return [each for each in abandoned if release(connection, each)]


def abandoned(connection: Connection, principal: str, day: int) -> int:
    """Characters that were charged on a day for abandoned requests that `sweep` has not deleted yet."""
    theirs = (table.c.principal == principal) & (table.c.charged_day == day)
    charged = select(func.sum(table.c.charged)).where(_is_abandoned(time.time()), theirs)
    return int(connection.scalar(charged) or 0)


def store(connection: Connection, claimed: Claim, answer: object, outstanding: int) -> bool:
    """Stores the answer of a request for ANSWER_LASTS seconds. Its texts with `outstanding` characters failed for a
    reason that may pass. Returns False if another caller has taken the request over."""
    stored = {"answer": json.dumps(answer), "outstanding": outstanding, "delivered": None}
    mine = update(table).where(_is_held(claimed)).values(stored)
    return bool(connection.execute(mine).rowcount)


def end(connection: Connection, leases: Iterable[Claim]) -> None:
    """Deletes the leases of requests that were answered."""
    names: dict[str, list[str]] = {}
    for each in leases:
        names.setdefault(each.principal, []).append(each.key)
    for principal, ended in names.items():
        theirs = (table.c.principal == principal) & table.c.idempotency_key.in_(ended)
        connection.execute(delete(table).where(theirs))


def release(connection: Connection, claimed: Claim) -> bool:
    """Ends a failed request, so that a repeat executes it: the answer before, if there was one, is its answer again.
    Returns False if another caller has taken it over."""
    if claimed.delivered is not None:
        return store(connection, claimed, claimed.delivered, claimed.charged)
    mine = delete(table).where(_is_held(claimed))
    return bool(connection.execute(mine).rowcount)


def _is_abandoned(now: float) -> ColumnElement[bool]:
    return table.c.answer.is_(None) & (table.c.deadline <= now - ABANDONED)


def _is(claimed: Claim) -> ColumnElement[bool]:
    return (table.c.principal == claimed.principal) & (table.c.idempotency_key == claimed.key)


def _is_held(claimed: Claim) -> ColumnElement[bool]:
    """Whether this claim holds the row. A caller who took it over has another deadline, perhaps with the same request
    id."""
    return _is(claimed) & table.c.answer.is_(None) & (table.c.deadline == claimed.deadline)
