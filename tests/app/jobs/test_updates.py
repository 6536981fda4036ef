from __future__ import annotations

import time

from sqlalchemy import event, update

from app.database.tables import job as table
from app.database.transactions import Database
from app.jobs import store
from app.jobs.job import Job, Status
from app.jobs.updates import JobUpdates
from tests.app.jobs.conftest import create_job


def made(database: Database) -> Job:
    """A job that runs."""
    return database.run(lambda connection: Job.of(store.lock(connection, create_job(connection))))


def change(database: Database, job: Job, status: Status) -> None:
    database.run(lambda connection: store.change(connection, job.number, status=status))


def test_changes_of_watched_jobs_are_found_by_two_queries(database: Database) -> None:
    jobs = [made(database) for _ in range(5)]
    updates = JobUpdates(database)
    for job in jobs:
        updates.watch(job)
    for job in jobs[:2]:
        change(database, job, Status.FAILED)
    queries: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))
    updates.refresh()
    assert len([query for query in queries if query.startswith("SELECT")]) == 2
    present = [updates.present(job.number) for job in jobs]
    assert [each and each.status for each in present] == ["FAILED", "FAILED", "RUNNING", "RUNNING", "RUNNING"]
    queries.clear()
    updates.refresh()
    assert len([query for query in queries if query.startswith("SELECT")]) == 1


def test_what_was_deleted_or_has_expired_is_gone(database: Database) -> None:
    deleted, expired, kept = (made(database) for _ in range(3))
    updates = JobUpdates(database)
    for job in (deleted, expired, kept):
        updates.watch(job)
    past = {"expires": time.time() - 1}
    database.run(lambda connection: connection.execute(table.delete().where(table.c.id == deleted.number)))
    database.run(lambda connection: connection.execute(update(table).where(table.c.id == expired.number).values(past)))
    updates.refresh()
    assert [updates.present(job.number) is None for job in (deleted, expired, kept)] == [True, True, False]


def test_a_job_is_watched_until_its_last_watcher_leaves(database: Database) -> None:
    job = made(database)
    updates = JobUpdates(database)
    updates.watch(job)
    updates.watch(job)
    updates.unwatch(job.number)
    change(database, job, Status.FAILED)
    updates.refresh()
    present = updates.present(job.number)
    assert present is not None
    assert present.status == Status.FAILED
    updates.unwatch(job.number)
    assert updates.present(job.number) is None
    updates.refresh()
