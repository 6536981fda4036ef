"""Chunks: the texts of jobs that are with workers. At most OUT chunks of a caller are out at a time, and callers take
turns, so that a small job ends as soon beside a large one as beside another small one."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, func, insert, literal_column, select, update

from app.database.tables import job as table
from app.database.tables import job_chunk, job_segment
from app.database.transactions import is_first
from app.jobs import store
from app.jobs.job import ACTIVE, State, Status
from tasks.contract.errors import TolkError
from tasks.contract.reply import Failure, TextResult
from tasks.contract.request import Lines, TranslateRequest
from tasks.registry.ways import Leg, Registry

LOCK = 0x6A6F6273  # of the database, for whoever takes chunks or sweeps
OUT = 16  # chunks of a caller that are out at a time, at most
CHUNK_TEXTS = 64  # of a chunk, at most
CHUNK_CHARACTERS = 8_000  # of the texts of a chunk, at most, unless it has only one
ROUND = 32  # chunks that one transaction takes, at most
JOBS = 200  # jobs that one round looks at
IS_WAITING = job_segment.c.state == literal_column(str(int(State.WAITING)))  # a parameter would not use the index
LOOK = 2.0  # seconds between two looks at a job whose texts all have to wait before they are tried again
MARGIN = 30.0  # seconds after a chunk's deadline until its reply counts as lost


@dataclass(frozen=True, slots=True)
class Chunk:
    """Texts of a job on their way to a worker. `id` is the task id, new at every publishing; `job` is the job's
    number."""

    id: str
    job: int
    request: TranslateRequest


def take(connection: Connection, registry: Registry, lasts: float, jobs_at_once: int = JOBS) -> list[Chunk]:
    """The next chunks, whose texts count as out from now on; none while another process takes some. A chunk has `lasts`
    seconds until its deadline. It looks at `jobs_at_once` jobs at most."""
    if not is_first(connection, LOCK):
        return []
    out: Counter[str] = Counter()
    for caller, count in connection.execute(select(job_chunk.c.caller, func.count()).group_by(job_chunk.c.caller)):
        out[caller] = count
    full = [caller for caller, count in out.items() if count >= OUT]
    waiting = select(table).where(table.c.status.in_(ACTIVE), table.c.waiting > 0, table.c.deadline > time.time())
    waiting = (
        waiting.where(table.c.not_before <= time.time(), table.c.caller.not_in(full))
        .order_by(table.c.fed)
        .limit(jobs_at_once)
    )
    # A job that is being cancelled or recorded has its turn the next time.
    rows = connection.execute(waiting.with_for_update(skip_locked=True)).all()
    jobs: dict[str, deque[Any]] = {}
    for row in rows:
        jobs.setdefault(row.caller, deque()).append(row)
    chunks: list[Chunk] = []
    while jobs and len(chunks) < ROUND:
        caller = min(jobs, key=lambda each: out[each])
        row = jobs[caller].popleft()
        chunk = _chunk(connection, row, registry, lasts)
        if chunk is not None:
            jobs[caller].append(row)
            out[caller] += 1
            chunks.append(chunk)
        elif all(each.job != row.id for each in chunks):  # it leaves its place among JOBS to others
            paused = update(table).where(table.c.id == row.id).values(not_before=time.time() + LOOK)
            connection.execute(paused)
        if not jobs[caller] or out[caller] >= OUT:
            del jobs[caller]
    return chunks


def _chunk(connection: Connection, job: Any, registry: Registry, lasts: float) -> Chunk | None:
    """The next chunk of a job, None if there is none. The first texts of the job that wait go together as far as the
    same model translates them; one that was out before goes alone. A job whose model is not on offer any more ends."""
    now = time.time()
    where = (job_segment.c.job_id == job.id) & IS_WAITING & (job_segment.c.not_before <= now)
    rows = connection.execute(select(job_segment).where(where).order_by(job_segment.c.position).limit(2 * CHUNK_TEXTS))
    segments = _together(rows.all())
    if not segments:
        return None
    first = segments[0]
    try:
        legs = registry.resolve(first.source, job.target, job.wanted)
    except TolkError as error:
        store.end(connection, job.id, Status.FAILED, Failure(error.code, error.message))
        return None
    deadline = min(now + lasts, job.deadline)
    chunk = Chunk(f"{job.uuid}.{uuid4().hex[:8]}", job.id, _request(job, segments, legs[first.leg], deadline))
    connection.execute(
        insert(job_chunk).values(id=chunk.id, job_id=job.id, caller=job.caller, leg=first.leg, lease=deadline + MARGIN)
    )
    taken = job_segment.c.position.in_([each.position for each in segments])
    connection.execute(
        update(job_segment).where(job_segment.c.job_id == job.id, taken).values(state=State.OUT, chunk_id=chunk.id)
    )
    begun = {} if job.status == Status.RUNNING else {"status": Status.RUNNING, "started": now}
    store.change(connection, job.id, waiting=table.c.waiting - len(segments), fed=now, **begun)
    return chunk


def _together(rows: Sequence[Any]) -> list[Any]:
    """Those of the rows that make a chunk with the first one."""
    segments: list[Any] = []
    characters = 0
    for row in rows:
        if segments and (row.attempts or (row.source, row.leg) != (rows[0].source, rows[0].leg)):
            continue
        characters += len(row.text)
        if segments and characters > CHUNK_CHARACTERS:
            break
        segments.append(row)
        if row.attempts or len(segments) == CHUNK_TEXTS:
            break
    return segments


def _request(job: Any, segments: Sequence[Any], leg: Leg, deadline: float) -> TranslateRequest:
    """The request to the model of a leg. The texts of the second are what the first has made of them."""
    texts = (each.text if not each.leg else TextResult.decode(json.loads(each.result)).text for each in segments)
    return TranslateRequest(
        texts=tuple(text or "" for text in texts),
        source=leg.pair.source,
        target=leg.pair.target,
        model=leg.model.name,
        options=leg.model.decoding,
        deadline=deadline,
        priority=job.priority,
        principal=job.principal or None,
        caller=job.caller,
        lines=Lines(job.lines),
    )
