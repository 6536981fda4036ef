"""The rows of jobs and of their texts. All functions run in a transaction of app.database.transactions."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, tuple_, update

from app.accounts import quotas
from app.database.tables import job as table
from app.database.tables import job_callback, job_chunk, job_segment
from app.jobs.job import ENDED, Job, Segment, State, Status
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import Failure

PAGE_CHARACTERS = 1_000_000  # of the texts of a page, after which it is cut short
GONE = "There is no such job of this key, or it has expired, as its field expiresAt said."


def lock(connection: Connection, number: int) -> Any:
    """The row of a job, which nobody else changes until the transaction ends."""
    return connection.execute(select(table).where(table.c.id == number).with_for_update()).one()


def find(connection: Connection, principal: str, job_id: str, *, locked: bool = False) -> Job | None:
    """A job of this principal, None if it has none with this id. If `locked`, nobody else changes it until the
    transaction ends."""
    query = select(table).where(table.c.uuid == job_id.lower(), table.c.principal == principal, is_kept())
    row = connection.execute(query.with_for_update() if locked else query).one_or_none()
    return None if row is None else Job.of(row)


def known(connection: Connection, principal: str, job_id: str) -> Job:
    """A job of this principal, which nobody else changes until the transaction ends. Raises TolkError(BAD_INPUT) if it
    has none with this id."""
    job = find(connection, principal, job_id, locked=True)
    if job is None:
        raise TolkError(Code.BAD_INPUT, f"id: {GONE}")
    return job


def find_by_idempotency_key(connection: Connection, principal: str, key: str) -> tuple[Job, str] | None:
    """The principal's job that was submitted with an idempotency key, and the hash of its input. One that has expired
    loses the key."""
    mine = (table.c.principal == principal) & (table.c.idempotency_key == key)
    connection.execute(update(table).where(mine, ~is_kept()).values(idempotency_key=None))
    row = connection.execute(select(table).where(mine)).one_or_none()
    return None if row is None else (Job.of(row), row.input_hash)


def page(
    connection: Connection, principal: str, first: int, after: str | None = None, status: Status | None = None
) -> tuple[list[Job], bool]:
    """Up to `first` jobs of a principal, the newest first, from the one behind the cursor `after`; and whether there
    are more. Raises TolkError(BAD_INPUT) for a cursor that this service has not made."""
    query = select(table).where(table.c.principal == principal, is_kept())
    if status is not None:
        query = query.where(table.c.status == status)
    if after is not None:
        query = query.where(tuple_(table.c.created, table.c.id) < tuple_(*_place(after)))
    rows = connection.execute(query.order_by(table.c.created.desc(), table.c.id.desc()).limit(first + 1)).all()
    return [Job.of(row) for row in rows[:first]], len(rows) > first


def cursor(job: Job) -> str:
    """The cursor that stands for a job in `page`."""
    return base64.urlsafe_b64encode(f"{job.created!r} {job.number}".encode()).decode()


def segments(connection: Connection, number: int, first: int, after: int = -1) -> tuple[list[Segment], bool]:
    """Up to `first` texts of a job from the position behind `after`, and whether there are more. There are fewer if
    they are long."""
    query = select(job_segment).where(job_segment.c.job_id == number, job_segment.c.position > after)
    found: list[Segment] = []
    characters = 0
    for row in connection.execute(query.order_by(job_segment.c.position).limit(first + 1)):
        if len(found) == first or characters > PAGE_CHARACTERS:
            return found, True
        found.append(Segment.of(row))
        characters += len(row.text)
    return found, False


def texts(connection: Connection, number: int, start: int, end: int) -> list[str]:
    """The texts of a job at the positions from `start` to before `end`."""
    where = (job_segment.c.job_id == number) & job_segment.c.position.between(start, end - 1)
    return list(connection.scalars(select(job_segment.c.text).where(where).order_by(job_segment.c.position)))


def counts(connection: Connection) -> dict[str, tuple[int, int]]:
    """By status, how many jobs there are, and how many of their texts have no outcome."""
    left = func.sum(table.c.total - table.c.translated - table.c.failed)
    rows = connection.execute(select(table.c.status, func.count(), left).group_by(table.c.status))
    return dict.fromkeys(Status, (0, 0)) | {status: (count, int(left)) for status, count, left in rows}


def create(connection: Connection, values: dict[str, Any]) -> int:
    """Inserts a job with these columns, and returns its number. Raises sqlalchemy's IntegrityError if another caller
    was faster with the same idempotency key."""
    number: int = connection.execute(insert(table).values(values).returning(table.c.id)).scalar_one()
    return number


def change(connection: Connection, number: int, **values: Any) -> None:
    """Changes columns of a job, and tells so by its revision."""
    changed = update(table).where(table.c.id == number).values(revision=table.c.revision + 1, **values)
    connection.execute(changed)


def add(connection: Connection, number: int, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts texts of a job: dictionaries of the columns of job_segment."""
    if rows:
        connection.execute(insert(job_segment), [row | {"job_id": number} for row in rows])


def end(connection: Connection, number: int, status: Status, error: Failure | None = None) -> None:
    """Ends a job that has not ended, and refunds the characters that were not translated, once. Whoever is to be called
    back is noted. Its chunks stay until app.jobs.sweep tells workers that nobody wants them."""
    row = lock(connection, number)
    if row.status in ENDED:
        return
    refund = min(row.characters - row.translated_characters, row.charged)
    if row.principal and refund:
        quotas.refund(connection, row.principal, refund, row.charged_day)
    now = time.time()
    change(
        connection,
        number,
        status=status,
        finished=now,
        expires=now + row.retention,
        charged=row.charged - refund,
        error_code=error and error.code,
        error_message=error and error.message,
    )
    if row.callback_url is not None:
        connection.execute(delete(job_callback).where(job_callback.c.job_id == number))
        connection.execute(insert(job_callback).values(job_id=number, next_attempt=now))


def end_if_complete(connection: Connection, number: int) -> None:
    """Ends a job all of whose texts have an outcome."""
    row = lock(connection, number)
    if row.status not in (Status.QUEUED, Status.RUNNING) or row.translated + row.failed < row.total:
        return
    if not row.failed:
        end(connection, number, Status.SUCCEEDED)
        return
    message = f"{row.failed} of {row.total} texts have no translation; each says why. retryJob translates these alone."
    end(connection, number, Status.FAILED, Failure(_first_code(connection, number), message))


def release(connection: Connection, number: int, chunk: str, *, attempts: int = 0) -> int:
    """Takes a chunk of a job back, whose texts then wait again, with so many attempts more. Returns how many they
    are."""
    mine = job_segment.c.chunk_id == chunk
    waiting = {"state": State.WAITING, "chunk_id": None, "attempts": job_segment.c.attempts + attempts}
    count = connection.execute(update(job_segment).where(mine).values(waiting)).rowcount
    connection.execute(delete(job_chunk).where(job_chunk.c.id == chunk))
    if count:
        connection.execute(update(table).where(table.c.id == number).values(waiting=table.c.waiting + count))
    return count


def _first_code(connection: Connection, number: int) -> Code:
    """The error of the first text that failed."""
    failed = select(job_segment).where(job_segment.c.job_id == number, job_segment.c.state == State.FAILED)
    row = connection.execute(failed.order_by(job_segment.c.position).limit(1)).one()
    result = Segment.of(row).result
    return result.error.code if result and result.error else Code.INTERNAL


def is_kept() -> ColumnElement[bool]:
    """That a job has not expired."""
    return table.c.expires.is_(None) | (table.c.expires > time.time())


def _place(after: str) -> tuple[float, int]:
    try:
        created, number = base64.urlsafe_b64decode(after.encode()).split()
        return float(created), int(number)
    except (ValueError, binascii.Error):
        raise TolkError(Code.BAD_INPUT, "after: a cursor of an earlier page was expected.") from None
