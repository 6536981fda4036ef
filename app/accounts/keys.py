"""API keys: their names, scopes and limits. Of the secret, only a hash is stored."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, and_, exists, insert, or_, select, update

from app.database.tables import api_key, usage
from app.database.transactions import Database
from tasks.contract.errors import Code, TolkError

LOOKUP_LASTS = 2.0  # seconds that a found key is cached, at most: a revoked key is refused at the latest after them
LONGEST_KEEP = 366 * 86_400.0  # seconds
REMEMBERED = 10_000  # cached keys, at most
NAME = re.compile(r"[\w.@+-]([\w .@+-]{0,98}[\w.@+-])?")
SECRET = re.compile(r"tolk_[A-Za-z0-9_-]{43}")

T = TypeVar("T")


class Scope(StrEnum):
    """What a key allows its holder to do."""

    TRANSLATE = "translate"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. A limit is None if there is none; times are in Unix seconds."""

    id: int
    name: str
    scopes: frozenset[Scope]
    requests_per_minute: int | None
    characters_per_day: int | None
    created: float
    revoked: float | None = None
    previous_until: float | None = None  # until when the secret before the last rotation is valid

    @property
    def principal(self) -> str:
        """The key's id as a string, which identifies the caller in messages and tables."""
        return str(self.id)


def create(
    connection: Connection,
    name: str,
    scopes: Iterable[Scope],
    requests_per_minute: int | None = None,
    characters_per_day: int | None = None,
) -> str:
    """Makes a key and returns its secret, which is stored nowhere. Raises TolkError(BAD_INPUT) if the name is invalid
    or was used before."""
    if not NAME.fullmatch(name):
        raise TolkError(
            Code.BAD_INPUT,
            "A name has 1 to 100 letters, digits, spaces, and . @ + - _, and neither begins nor ends with a space.",
        )
    if connection.scalar(select(exists().where(api_key.c.name == name))):
        raise TolkError(Code.BAD_INPUT, f"There is, or was, a key {name!r} already. Choose another name.")
    secret = _secret()
    now = time.time()
    values = {
        "name": name,
        "hash": _hash(secret),
        "scopes": _joined(scopes),
        "requests_per_minute": requests_per_minute,
        "characters_per_day": characters_per_day,
        "created": now,
    }
    key_id = connection.scalar(insert(api_key).values(values).returning(api_key.c.id))
    connection.execute(insert(usage).values(key_id=key_id, next_request=now, day=0, characters=0))
    return secret


def rotate(connection: Connection, name: str, keep: float) -> str:
    """Gives a key a new secret and returns it. The old secret stays valid for `keep` seconds, LONGEST_KEEP at most.
    Raises TolkError(BAD_INPUT) if it is another number, or if there is no such key."""
    if not 0 <= keep <= LONGEST_KEEP:  # infinity and NaN are none
        raise TolkError(Code.BAD_INPUT, f"--keep: 0 to {LONGEST_KEEP:.0f} seconds were expected, not {keep:g}.")
    secret = _secret()
    _update(
        connection,
        name,
        hash=_hash(secret),
        previous_hash=api_key.c.hash if keep else None,
        previous_until=time.time() + keep if keep else None,
    )
    return secret


def revoke(connection: Connection, name: str) -> None:
    """Revokes a key for good. Raises TolkError(BAD_INPUT) if there is no such key."""
    _update(connection, name, revoked=time.time())


def limit(connection: Connection, name: str, **limits: int | None) -> None:
    """Sets `requests_per_minute`, `characters_per_day`, or both. Raises TolkError(BAD_INPUT) for an unknown key."""
    _update(connection, name, **limits)


def listed(connection: Connection) -> list[Key]:
    """All keys, revoked ones too, the oldest first."""
    return [_key(row) for row in connection.execute(select(api_key).order_by(api_key.c.id)).mappings()]


class KeyRing:
    """Looks keys up in the database, and caches what it found for LOOKUP_LASTS seconds of its clock. Thread-safe.

    One thread at a time looks a key up. Others use what is cached, which is renewed in the last quarter of its time, or
    wait for that thread.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._found: dict[str, tuple[float, Any]] = {}  # when it was looked up, and what was found
        self._running: dict[str, Future[Any]] = {}  # look-ups

    def find(self, secret: str) -> Key | None:
        """The key with this secret, or None if there is none or it is revoked. Raises TolkError(UNAVAILABLE)."""
        if not SECRET.fullmatch(secret):
            return None
        digest = _hash(secret)
        return self._look_up(digest, lambda connection: _find(connection, digest))

    def exist(self) -> bool:
        """Whether a key was ever made, so that revoking the last key does not open the service to everybody. Raises
        TolkError(UNAVAILABLE)."""
        return self._look_up("", _exist)

    def _look_up(self, name: str, query: Callable[[Connection], T]) -> T:
        now = self._clock()
        since, value = self._found.get(name, (-math.inf, None))
        if now < since + 0.75 * LOOKUP_LASTS:
            return cast(T, value)
        mine: Future[T] = Future()
        running = self._running.setdefault(name, mine)
        if running is not mine:
            return cast(T, value) if now < since + LOOKUP_LASTS else running.result()
        try:
            value = self._database.run(query)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(value)
        finally:
            del self._running[name]
        if value is None:  # a wrong secret is not cached, because anybody can make up any number
            self._found.pop(name, None)
        else:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            self._found[name] = (now, value)
        return value


def _exist(connection: Connection) -> bool:
    return bool(connection.scalar(select(exists(select(api_key.c.id)))))


def _find(connection: Connection, digest: str) -> Key | None:
    current = api_key.c.hash == digest
    previous = and_(api_key.c.previous_hash == digest, api_key.c.previous_until > time.time())
    found = connection.execute(select(api_key).where(or_(current, previous), api_key.c.revoked.is_(None)))
    row = found.mappings().one_or_none()
    return None if row is None else _key(row)


def _update(connection: Connection, name: str, **values: Any) -> None:
    changed = connection.execute(
        update(api_key).where(api_key.c.name == name, api_key.c.revoked.is_(None)).values(**values)
    )
    if not changed.rowcount:
        raise TolkError(
            Code.BAD_INPUT,
            f"The key {name!r} does not exist or is revoked. `flask --app app keys list` lists the keys.",
        )


def _key(row: Any) -> Key:
    fields = {name: row[name] for name in Key.__dataclass_fields__ if name != "scopes"}
    known = set(Scope)
    return Key(**fields, scopes=frozenset(Scope(scope) for scope in row["scopes"].split() if scope in known))


def _joined(scopes: Iterable[Scope]) -> str:
    return " ".join(sorted(set(scopes)))


def _secret() -> str:
    """A secret of 256 random bits. Nobody can guess it, so a fast hash is enough."""
    return f"tolk_{secrets.token_urlsafe(32)}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
