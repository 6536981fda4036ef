"""The limits of a key: requests a minute, and characters a day. Each key has one row, which is changed by one
statement, so that all processes count together.

Requests are limited by the generic cell rate algorithm (ITU-T I.371): a minute's worth of requests may come at once,
and then one each time that its share of the minute has passed. Days are those of UTC.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, case, select, update

from app.accounts.keys import Key
from app.database.tables import usage
from tasks.contract.errors import Code, TolkError

MINUTE = 60.0
DAY = 86_400
SKEW = 5.0  # seconds that another host's clock may be ahead; a later time was written by a clock that was wrong


@dataclass(frozen=True, slots=True)
class Usage:
    """Characters that were translated today; the limit, or None; and when today ends, in Unix seconds."""

    characters: int
    limit: int | None
    resets_at: float


def today() -> int:
    """Days since 1970."""
    return int(time.time() // DAY)


def charge(connection: Connection, key: Key, characters: int, day: int, *, request: bool = True) -> None:
    """Charges characters on a day, and a request unless `request` is false, because that was charged already.

    Raises TolkError, with nothing charged: RATE_LIMITED, or BAD_INPUT if the characters exceed the limit of a whole
    day.
    """
    if key.characters_per_day is not None and characters > key.characters_per_day:
        raise TolkError(
            Code.BAD_INPUT,
            f"The texts have {characters} characters, more than the {key.characters_per_day} that this key has a day.",
        )
    now = time.time()
    is_current = _is_current(day, now)
    used = case((is_current, usage.c.characters), else_=0)
    allowed: list[ColumnElement[bool]] = []
    values = {"day": case((is_current, usage.c.day), else_=day), "characters": used + characters}
    if request and key.requests_per_minute is not None:
        share = MINUTE / key.requests_per_minute
        next_request = case((usage.c.next_request.between(now, now + MINUTE + SKEW), usage.c.next_request), else_=now)
        values["next_request"] = next_request + share
        allowed.append(next_request <= now + MINUTE - share)
    if key.characters_per_day is not None:
        allowed.append(used + characters <= key.characters_per_day)
    changed = connection.execute(update(usage).where(usage.c.key_id == key.id, *allowed).values(values))
    if not changed.rowcount:
        raise _refusal(connection, key, characters, day, now)


def refund(connection: Connection, principal: str, characters: int, day: int) -> None:
    """Refunds characters that a key was charged for on a day and that were not translated, while that day lasts."""
    row = and_(usage.c.key_id == int(principal), usage.c.day == day)
    left = case((usage.c.characters > characters, usage.c.characters - characters), else_=0)
    connection.execute(update(usage).where(row).values(characters=left))


def used(connection: Connection, key: Key) -> Usage:
    """What a key has used today."""
    day = today()
    characters = connection.scalar(select(usage.c.characters).where(usage.c.key_id == key.id, usage.c.day == day))
    return Usage(characters or 0, key.characters_per_day, (day + 1) * float(DAY))


def _is_current(day: int, now: float) -> ColumnElement[bool]:
    """Whether a row counts the characters of `day`, or of the next one, which has begun on a host with a clock that is
    ahead."""
    return usage.c.day.between(day, max(day, int((now + SKEW) // DAY)))


def _refusal(connection: Connection, key: Key, characters: int, day: int, now: float) -> TolkError:
    row = connection.execute(select(usage).where(usage.c.key_id == key.id)).one()
    spent = connection.scalar(select(usage.c.characters).where(usage.c.key_id == key.id, _is_current(day, now))) or 0
    if key.characters_per_day is not None and spent + characters > key.characters_per_day:
        return TolkError(
            Code.RATE_LIMITED,
            f"{spent} of the {key.characters_per_day} characters that this key has a day are used, and these texts have"
            f" {characters}. The day ends at midnight UTC.",
            (day + 1) * DAY - now,
        )
    share = MINUTE / (key.requests_per_minute or 1)
    return TolkError(
        Code.RATE_LIMITED,
        f"This key's {key.requests_per_minute} requests a minute are used up.",
        max(0.0, row.next_request + share - MINUTE - now),
    )
