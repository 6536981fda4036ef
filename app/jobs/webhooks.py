"""Tells the addresses that jobs name (`callbackUrl`) when these jobs have ended: a thread of the results worker.

The table job_callback has a row for each job that has ended and has to tell somebody, or has told it.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, select, update

from app.database.tables import job as table
from app.database.tables import job_callback
from app.database.transactions import Database
from app.jobs import delivery
from app.jobs.delivery import TIMEOUT, DeliveryError
from app.jobs.job import ENDED, Job
from tasks.contract.errors import TolkError

POLL = 1.0  # seconds between two looks for what is due
AT_ONCE = 16  # deliveries
CLAIM = 4 * TIMEOUT  # seconds for which nobody else tries what one process has begun
# Seconds from one attempt to the next, as Standard Webhooks recommends: a day and a bit until it is given up.
DELAYS = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 36_000.0)
JITTER = 0.2  # share by which a delay may be longer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Callback:
    """What became of telling the end of a job. Times are in Unix seconds. `error` is why the last attempt failed."""

    attempts: int
    next_attempt: float | None
    delivered: float | None
    error: str | None


def find(connection: Connection, number: int) -> Callback | None:
    """The callback of a job; None if it has none, or has not ended."""
    row = connection.execute(select(job_callback).where(job_callback.c.job_id == number)).one_or_none()
    return None if row is None else Callback(row.attempts, row.next_attempt, row.delivered, row.error)


class Webhooks:
    """Delivers what is due, until it is closed. Several processes may each have one.

    `secret` is the service's, from which those of the keys are made; without it, all attempts fail. `private` allows
    http, and addresses of private networks.
    """

    def __init__(
        self, database: Database, secret: str | None, *, private: bool = False, timeout: float = TIMEOUT
    ) -> None:
        self._database = database
        self._secret = secret
        self._private = private
        self._timeout = timeout
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Returns when the deliveries that have begun have ended."""
        self._closing.set()
        self._thread.join()

    def deliver(self) -> int:
        """Tries what is due, AT_ONCE at most, and returns how much that was. Raises TolkError if the database is
        away."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return len(self._begin(threads, AT_ONCE))

    def _begin(self, threads: ThreadPoolExecutor, most: int) -> set[Future[None]]:
        due = self._database.run(lambda connection: _claim(connection, most))
        return {threads.submit(self._attempt, job, attempt) for job, attempt in due}

    def _attempt(self, job: Job, attempt: int) -> None:
        try:
            self._note(job, attempt, self._result(job, attempt))
        except Exception:  # it is due again after CLAIM
            logger.exception("what became of the callback of job %s could not be noted", job.id)

    def _result(self, job: Job, attempt: int) -> dict[str, Any]:
        """Sends a message once. Returns the columns that say what became of it."""
        try:
            self._send(job)
        except DeliveryError as error:
            is_over = error.is_final or attempt > len(DELAYS)
            delay = None if is_over else DELAYS[attempt - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 - spreads
            then = "it was the last attempt" if delay is None else f"the next attempt is in {delay:.0f} s"
            logger.warning("the callback of job %s failed: %s; %s", job.id, error, then)
            return {"error": str(error), "next_attempt": None if delay is None else time.time() + delay}
        return {"error": None, "next_attempt": None, "delivered": time.time()}

    def _send(self, job: Job) -> None:
        if self._secret is None:  # the web tier has one, or it would have refused the job's address
            raise DeliveryError("the operator has to set TOLK_WEBHOOK_SECRET for the results worker, too")
        body = json.dumps(message(job), ensure_ascii=False).encode()
        # The same for all attempts, and another one if the job is retried and ends again.
        message_id = f"{job.id}.{int(1000 * (job.finished or 0))}"
        headers = delivery.signed(delivery.secret_of(self._secret, job.principal), message_id, body, time.time())
        delivery.post(job.callback_url or "", body, headers, private=self._private, timeout=self._timeout)

    def _note(self, job: Job, attempt: int, result: dict[str, Any]) -> None:
        mine = (job_callback.c.job_id == job.number) & (job_callback.c.attempts == attempt)
        self._database.run(lambda connection: connection.execute(update(job_callback).where(mine).values(result)))

    def _run(self) -> None:
        attempts: set[Future[None]] = set()  # a receiver that hangs takes one place, and the others go on
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as threads:
            while not self._closing.is_set():
                try:
                    attempts |= self._begin(threads, AT_ONCE - len(attempts))
                except TolkError as error:
                    logger.warning("callbacks have to wait: %s", error.message)
                except Exception:  # all callbacks depend on this thread, so it must go on
                    logger.exception("callbacks have to wait")
                is_full = len(attempts) == AT_ONCE
                if not is_full:
                    self._closing.wait(POLL)
                attempts = wait(attempts, POLL if is_full else 0, FIRST_COMPLETED).not_done


def message(job: Job) -> dict[str, Any]:
    """What a receiver is told of a job that has ended. It holds no text: the receiver asks for these with its key."""
    return {
        "type": f"job.{job.status.lower()}",
        "timestamp": _time(job.finished),
        "data": {
            "id": job.id,
            "status": job.status,
            "progress": {"done": job.done, "total": job.total, "failed": job.failed},
            "createdAt": _time(job.created),
            "finishedAt": _time(job.finished),
            "expiresAt": _time(job.expires),
            "error": job.error and {"code": job.error.code, "message": job.error.message},
        },
    }


def _claim(connection: Connection, most: int) -> list[tuple[Job, int]]:
    """Takes what is due, with the number of the attempt. What a process does not end is due again after CLAIM."""
    now = time.time()
    due = select(job_callback).where(job_callback.c.next_attempt <= now).order_by(job_callback.c.next_attempt)
    claimed: list[tuple[Job, int]] = []
    for row in connection.execute(due.limit(most).with_for_update(skip_locked=True)).all():
        mine = job_callback.c.job_id == row.job_id
        job = Job.of(connection.execute(select(table).where(table.c.id == row.job_id)).one())
        if job.status not in ENDED:  # it is being retried, and will tell when it ends again
            connection.execute(delete(job_callback).where(mine))
            continue
        changed = update(job_callback).where(mine).values(attempts=row.attempts + 1, next_attempt=now + CLAIM)
        connection.execute(changed)
        claimed.append((job, row.attempts + 1))
    return claimed


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
