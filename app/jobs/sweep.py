"""What happens to jobs whether or not anybody asks: lost chunks, overdue jobs, and expired ones.

Every function does one transaction's part of its work. Of several processes that call one at the same time, one does.
"""

from __future__ import annotations

import time

from sqlalchemy import Connection, delete, select

from app.database.tables import job as table
from app.database.tables import job_chunk, job_segment
from app.database.transactions import is_first
from app.jobs import recording, store
from app.jobs.chunks import LOCK
from app.jobs.job import ENDED, Status
from tasks.contract.errors import Code
from tasks.contract.reply import Failure

PART = 100  # rows of jobs or chunks that one transaction looks at
PURGED = 5_000  # texts that one transaction deletes
LATE = "The job was not done by its deadline. retryJob goes on with what is left, with as much time again."
UNSTARTED = "The job was not started by its deadline. Start a job by startJob when it has all its texts."


def lose_chunks(connection: Connection) -> int:
    """Has chunks whose replies did not come in time published again, text by text. Returns how many they were.

    Before, all replies in the results queue should have been recorded.
    """
    if not is_first(connection, LOCK):
        return 0
    lost = select(job_chunk.c.id).join(table).where(job_chunk.c.lease < time.time()).limit(PART)
    # Others hold a job before its key's usage: this holds all jobs first, without waiting for any.
    chunks = list(connection.scalars(lost.with_for_update(of=table, skip_locked=True)))
    for chunk in chunks:
        recording.lose(connection, chunk)
    return len(chunks)


def end_overdue(connection: Connection) -> int:
    """Ends jobs whose deadline has passed. Returns how many they were."""
    if not is_first(connection, LOCK):
        return 0
    overdue = select(table.c.id, table.c.status).where(table.c.status.not_in(ENDED), table.c.deadline <= time.time())
    rows = connection.execute(overdue.limit(PART).with_for_update(skip_locked=True)).all()
    for row in rows:
        message = UNSTARTED if row.status == Status.OPEN else LATE
        store.end(connection, row.id, Status.FAILED, Failure(Code.TIMEOUT, message))
    return len(rows)


def take_unwanted(connection: Connection) -> list[str]:
    """Takes back the chunks of jobs that have ended. Returns their task ids, for workers to be told."""
    if not is_first(connection, LOCK):
        return []
    ended = select(job_chunk.c.id, job_chunk.c.job_id).join(table).where(table.c.status.in_(ENDED)).limit(PART)
    rows = connection.execute(ended).all()
    for row in rows:
        store.lock(connection, row.job_id)
        store.release(connection, row.job_id, row.id)
    return [row.id for row in rows]


def purge(connection: Connection) -> bool:
    """Deletes a part of what has expired: a job, or some of its texts. Returns whether there may be more."""
    if not is_first(connection, LOCK):
        return False
    number = connection.scalar(select(table.c.id).where(table.c.expires <= time.time()).limit(1))
    if number is None:
        return False
    mine = job_segment.c.job_id == number
    first = connection.scalar(select(job_segment.c.position).where(mine).order_by(job_segment.c.position).limit(1))
    if first is not None:
        connection.execute(delete(job_segment).where(mine, job_segment.c.position < first + PURGED))
    else:
        connection.execute(delete(table).where(table.c.id == number))
    return True
