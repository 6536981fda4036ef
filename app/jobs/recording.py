"""Writes the replies to chunks into the rows of their jobs. A chunk that has been recorded, or was taken back, is gone:
another reply to it changes nothing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update

from app.database.tables import job as table
from app.database.tables import job_chunk, job_segment
from app.jobs import store
from app.jobs.job import ENDED, State
from app.jobs.texts import merged
from app.translation.outcome import Origin
from app.translation.pivot import join
from tasks.contract.errors import Code, TolkError
from tasks.contract.fields import plain
from tasks.contract.reply import Failure, TextResult, TranslateReply
from tasks.registry.ways import Registry

PASSING = {Code.TIMEOUT, Code.UNAVAILABLE, Code.OVERLOADED, Code.CANCELLED}  # errors that another attempt may not have
ATTEMPTS = 6  # of a text that fails by one of them
PAUSE = (4.0, 300.0)  # seconds before the second attempt, and at most; each pause is four times the one before
LOSSES = 2  # chunks that a text may be lost with: it may be what ended their workers
LOST = "No worker has survived this text, or it was lost twice. Send it in smaller parts, or ask the operator."
UNREADABLE = Failure(Code.INTERNAL, "The service cannot read its worker's reply. Its log says why.")


def record(connection: Connection, registry: Registry, task_id: str, reply: TranslateReply) -> bool:
    """Writes a reply to the chunk with this task id. Returns whether anything was written.

    A text that another model translates further waits again, as does one whose error may pass, for longer each time.
    If the whole chunk failed, each of its texts waits to be tried alone; but if that is because the model is not there,
    they wait as before, and the job pauses.
    """
    number = connection.scalar(select(job_chunk.c.job_id).where(job_chunk.c.id == task_id))
    if number is None:
        return False
    job = store.lock(connection, number)
    if job.status in ENDED:  # what was refunded is not delivered
        store.release(connection, number, task_id)
        return False
    if reply.error is not None and reply.error.code is Code.UNAVAILABLE:
        postpone(connection, task_id)
        return True
    taken = connection.execute(delete(job_chunk).where(job_chunk.c.id == task_id)).rowcount
    segments = _segments(connection, task_id)
    if not taken or not segments:
        return False
    error = reply.error
    if error is None and len(reply.results) != len(segments):
        error = UNREADABLE
    if error is not None:
        results = [TextResult(error=error) for _ in segments]
        pause = error.code in PASSING
        rows = [
            _again(row, pause=pause) if len(segments) > 1 else _row(row, job, registry, reply, results[0])
            for row in segments
        ]
    else:
        rows = [_row(row, job, registry, reply, result) for row, result in zip(segments, reply.results, strict=True)]
    _write(connection, job, segments, rows, reply)
    return True


def lose(connection: Connection, task_id: str) -> None:
    """Takes back a chunk to which no reply came in time: each of its texts waits to be tried alone. One that is lost
    for the second time fails."""
    number = connection.scalar(select(job_chunk.c.job_id).where(job_chunk.c.id == task_id))
    if number is None:
        return
    job = store.lock(connection, number)
    segments = _segments(connection, task_id)
    connection.execute(delete(job_chunk).where(job_chunk.c.id == task_id))
    failed = Failure(Code.INTERNAL, LOST)
    rows = [_again(row) if row.attempts + 1 < LOSSES else _failed(row, failed) for row in segments]
    _write(connection, job, segments, rows, None)


def take_back(connection: Connection, task_id: str) -> None:
    """Takes back a chunk that no worker has seen: its texts wait as before."""
    number = connection.scalar(select(job_chunk.c.job_id).where(job_chunk.c.id == task_id))
    if number is not None:
        store.lock(connection, number)
        store.release(connection, number, task_id)


def postpone(connection: Connection, task_id: str) -> None:
    """Takes back a chunk that its queue refuses: its texts wait as before, and its job pauses, longer each time."""
    number = connection.scalar(select(job_chunk.c.job_id).where(job_chunk.c.id == task_id))
    if number is not None:
        job = store.lock(connection, number)
        store.release(connection, number, task_id)
        _pause(connection, job)


def _pause(connection: Connection, job: Any) -> None:
    """Sends no texts of a job for a while. What fails during a pause makes it no longer."""
    now = time.time()
    if job.not_before <= now:
        paused = {"not_before": now + _seconds(job.pauses), "pauses": min(job.pauses + 1, ATTEMPTS)}
        connection.execute(update(table).where(table.c.id == job.id).values(paused))


def _seconds(failures: int) -> float:
    """How long to wait after one more failure than so many."""
    first, longest = PAUSE
    return min(first * 4.0**failures, longest)


def _segments(connection: Connection, task_id: str) -> Sequence[Any]:
    """The rows of a chunk's texts, in order. With the job in the query, SQLite would read all of the job's."""
    mine = select(job_segment).where(job_segment.c.chunk_id == task_id)
    return connection.execute(mine.order_by(job_segment.c.position)).all()


def _row(row: Any, job: Any, registry: Registry, reply: TranslateReply, result: TextResult) -> dict[str, Any]:
    """What becomes of a text's row by its result."""
    if result.error is not None:
        may_pass = result.error.code in PASSING and row.attempts + 1 < ATTEMPTS
        return _again(row, pause=True) if may_pass else _failed(row, result.error)
    origin = Origin.decode(json.loads(row.origin))
    if row.leg:
        origin = replace(
            origin,
            model=f"{origin.model}+{reply.model}",
            version=f"{origin.version}+{reply.version}",
            via=_onward(row, job, registry),
        )
        result = join(row.text, TextResult.decode(json.loads(row.result)), result, 0)
    else:
        origin = replace(origin, model=reply.model, version=reply.version)
    is_last = row.leg >= len(_onward(row, job, registry))
    return {
        "state": State.TRANSLATED if is_last else State.WAITING,
        "leg": row.leg if is_last else row.leg + 1,
        "attempts": row.attempts if is_last else 0,
        "not_before": 0.0,
        "origin": _json(origin),
        "result": _json(result),
    }


def _again(row: Any, *, pause: bool = False) -> dict[str, Any]:
    not_before = time.time() + _seconds(row.attempts) if pause else 0.0
    return _kept(row) | {"state": State.WAITING, "attempts": row.attempts + 1, "not_before": not_before}


def _failed(row: Any, error: Failure) -> dict[str, Any]:
    return _kept(row) | {"state": State.FAILED, "result": _json(TextResult(error=error))}


def _kept(row: Any) -> dict[str, Any]:
    return {"leg": row.leg, "attempts": row.attempts, "not_before": 0.0, "origin": row.origin, "result": row.result}


def _onward(row: Any, job: Any, registry: Registry) -> tuple[str, ...]:
    """The languages in between on the way of a text; none if its models were taken from models.toml since."""
    try:
        return tuple(leg.pair.source for leg in registry.resolve(row.source, job.target, job.wanted)[1:])
    except TolkError:
        return ()


def _write(connection: Connection, job: Any, segments: Any, rows: Any, reply: TranslateReply | None) -> None:
    """Writes new columns of texts that were out, and adds them up in their job."""
    parameters = [row | {"at": old.position} for old, row in zip(segments, rows, strict=True)]
    names = ("state", "leg", "attempts", "not_before", "origin", "result")
    written = (
        update(job_segment)
        .where(job_segment.c.job_id == job.id, job_segment.c.position == bindparam("at"))
        .values(chunk_id=None, **{name: bindparam(name) for name in names})
    )
    if parameters:
        connection.execute(written, parameters)
    states = Counter(row["state"] for row in rows)
    translated = [old for old, row in zip(segments, rows, strict=True) if row["state"] == State.TRANSLATED]
    versions = [reply.version] if reply is not None and reply.version and translated else []
    store.change(
        connection,
        job.id,
        waiting=table.c.waiting + states[State.WAITING],
        translated=table.c.translated + states[State.TRANSLATED],
        failed=table.c.failed + states[State.FAILED],
        translated_characters=table.c.translated_characters + sum(len(each.text) for each in translated),
        version=merged(job.version, versions),
        pauses=0,
    )
    store.end_if_complete(connection, job.id)


def _json(value: Origin | TextResult) -> str:
    return json.dumps(plain(value), ensure_ascii=False)
