"""The present state of the jobs that somebody listens to."""

from __future__ import annotations

import threading
from collections import Counter

from sqlalchemy import Connection, select

from app.database.tables import job as table
from app.database.transactions import Database
from app.jobs import store
from app.jobs.job import Job


class JobUpdates:
    """Looks for changes of all watched jobs at once: one query for their revisions, and one for those that changed.
    Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watchers: Counter[int] = Counter()
        self._jobs: dict[int, Job] = {}
        self._lock = threading.Lock()

    def watch(self, job: Job) -> None:
        """Includes a job until `unwatch` was called as often."""
        with self._lock:
            self._watchers[job.number] += 1
            self._jobs.setdefault(job.number, job)

    def unwatch(self, number: int) -> None:
        with self._lock:
            self._watchers[number] -= 1
            if not self._watchers[number]:
                del self._watchers[number]
                self._jobs.pop(number, None)

    def present(self, number: int) -> Job | None:
        """A watched job as `refresh` has last found it; None if it was deleted or has expired."""
        return self._jobs.get(number)

    def refresh(self) -> None:
        """Reads the jobs that have changed. Raises TolkError(UNAVAILABLE)."""
        with self._lock:
            known = {number: job.revision for number, job in self._jobs.items()}
        if not known:
            return

        def read(connection: Connection) -> tuple[set[int], list[Job]]:
            kept = select(table.c.id, table.c.revision).where(table.c.id.in_(known), store.is_kept())
            revisions = {row.id: row.revision for row in connection.execute(kept)}
            changed = [number for number, revision in revisions.items() if revision != known[number]]
            rows = connection.execute(select(table).where(table.c.id.in_(changed))) if changed else ()
            return known.keys() - revisions.keys(), [Job.of(row) for row in rows]

        gone, changed = self._database.run(read)
        with self._lock:
            for number in gone:
                self._jobs.pop(number, None)
            self._jobs |= {job.number: job for job in changed if job.number in self._watchers}
