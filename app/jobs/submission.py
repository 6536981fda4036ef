"""Jobs as callers make, follow and end them: rows in the database, from which app.jobs.results takes the texts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import IntegrityError

from app.accounts import auth, quotas
from app.accounts.keys import Scope
from app.accounts.quotas import DAY
from app.database.tables import job as table
from app.database.tables import job_chunk, job_segment
from app.database.transactions import Database
from app.jobs import store, webhooks
from app.jobs.job import ENDED, USUAL, Job, Segment, State, Status
from app.jobs.limits import JOB_TEXTS, UNFINISHED, Submission, check_call, check_page, check_submission, refusal
from app.jobs.texts import GivenTexts, given, merged
from app.jobs.webhooks import Callback
from app.translation.context import Context
from tasks.contract.errors import Code, TolkError


class Jobs:
    """The jobs in a database. A caller sees those of its own key; without keys, those of this machine. Thread-safe.

    Every method raises TolkError: FORBIDDEN without the scope, BAD_INPUT for an argument that does not fit or a job
    that the caller does not have, UNAVAILABLE if the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(self, context: Context, wanted: Submission) -> Job:
        """Makes a job of the texts, and starts it unless it is left open. The same idempotency key gets the same job.

        Also raises TolkError as app.translation.translate.translate does for languages, models and charges.
        """
        auth.demand(context.key, Scope.TRANSLATE)
        check_submission(wanted, context.settings)
        texts = given(
            context,
            wanted.texts,
            0,
            source=wanted.source,
            target=wanted.target,
            model=wanted.model,
            assume=wanted.assume,
        )

        def make(connection: Connection) -> Job:
            if (earlier := _earlier(connection, context, wanted)) is not None:
                _charge(connection, context, 0)
                return earlier
            _charge(connection, context, texts.characters)
            _limit_unfinished(connection, _owner(context))
            number = store.create(connection, _row(context, wanted, texts))
            store.add(connection, number, texts.rows)
            store.end_if_complete(connection, number)
            return Job.of(store.lock(connection, number))

        try:
            return self._database.run(make)
        except IntegrityError:  # another caller was faster with the same idempotency key
            return self._database.run(make)

    def append(self, context: Context, job_id: str, offset: int, texts: Sequence[str]) -> Job:
        """Adds texts to an open job. `offset` is the number of texts before them: the same call once more changes
        nothing."""
        auth.demand(context.key, Scope.TRANSLATE)
        check_call(texts)
        row = self._database.run(
            lambda connection: store.lock(connection, store.known(connection, _owner(context), job_id).number)
        )
        more = given(
            context,
            texts,
            offset,
            source=row.source,
            target=row.target,
            model=row.wanted,
            assume=row.assume,
        )

        def append(connection: Connection) -> Job:
            job = store.known(connection, _owner(context), job_id)
            if _is_repeated(connection, job, offset, more):
                _charge(connection, context, 0)
                return job
            if job.status is not Status.OPEN:
                raise refusal(f"id: the job is {job.status}; only an OPEN one takes more texts. Submit another job.")
            if job.total + len(texts) > JOB_TEXTS:
                raise refusal(f"texts: a job has at most {JOB_TEXTS}. Submit another job for the others.")
            _charge(connection, context, more.characters)
            store.add(connection, job.number, more.rows)
            locked = store.lock(connection, job.number)
            today = quotas.today()
            store.change(
                connection,
                job.number,
                total=table.c.total + len(texts),
                waiting=table.c.waiting + more.count(State.WAITING),
                translated=table.c.translated + more.count(State.TRANSLATED),
                failed=table.c.failed + more.count(State.FAILED),
                characters=table.c.characters + more.characters,
                charged=more.characters + (locked.charged if locked.charged_day == today else 0),
                charged_day=today,
                model=merged(locked.model, more.models),
            )
            return Job.of(store.lock(connection, job.number))

        return self._database.run(append)

    def start(self, context: Context, job_id: str) -> Job:
        """Closes and starts a job that was submitted open. One that has started already stays as it is."""

        def start(connection: Connection, job: Job) -> None:
            if job.status is Status.OPEN and not job.total:
                raise refusal("id: the job has no texts yet. Append some, then start it.")
            if job.status is Status.OPEN:
                store.change(connection, job.number, status=Status.QUEUED)
                store.end_if_complete(connection, job.number)

        return self._change(context, job_id, start)

    def cancel(self, context: Context, job_id: str) -> Job:
        """Cancels a job that has not ended. What was translated stays."""
        return self._change(
            context, job_id, lambda connection, job: store.end(connection, job.number, Status.CANCELLED)
        )

    def delete(self, context: Context, job_id: str) -> Job:
        """Cancels a job if it has not ended, and has it expire now."""

        def expire(connection: Connection, job: Job) -> None:
            store.end(connection, job.number, Status.CANCELLED)
            store.change(connection, job.number, expires=time.time())

        return self._change(context, job_id, expire)

    def retry(self, context: Context, job_id: str) -> Job:
        """Starts a job that failed or was cancelled once more, for the texts without a translation. The caller's key is
        charged for these."""

        def retry(connection: Connection, job: Job) -> None:
            if job.status not in (Status.FAILED, Status.CANCELLED):
                raise refusal(f"id: the job is {job.status}; only one that FAILED or was CANCELLED can be retried.")
            row = store.lock(connection, job.number)
            for chunk in list(connection.scalars(select(job_chunk.c.id).where(job_chunk.c.job_id == job.number))):
                store.release(connection, job.number, chunk)
            # A text that no model was asked for has no source, and would fail again.
            failed = (job_segment.c.job_id == job.number) & (job_segment.c.state == State.FAILED)
            anew = {"state": State.WAITING, "leg": 0, "attempts": 0, "not_before": 0.0, "result": None}
            again = connection.execute(
                update(job_segment).where(failed, job_segment.c.source.is_not(None)).values(anew)
            ).rowcount
            waiting = store.lock(connection, job.number).waiting + again
            if not waiting:
                raise refusal("id: nothing of the job would have another outcome. Each text says why it failed.")
            due = row.characters - row.translated_characters
            _charge(connection, context, due)
            now = time.time()
            store.change(
                connection,
                job.number,
                status=Status.QUEUED,
                started=None,
                finished=None,
                expires=None,
                deadline=max(job.deadline, now + job.deadline - job.created),
                failed=job.failed - again,
                waiting=waiting,
                not_before=0.0,
                pauses=0,
                charged=due if context.key is not None else 0,
                charged_day=quotas.today(),
                error_code=None,
                error_message=None,
            )

        return self._change(context, job_id, retry)

    def find(self, principal: str, job_id: str) -> Job | None:
        """A job of a key's principal, or without keys of the empty one; None if it has none with this id. The caller
        has to have made sure of the scope."""
        return self._database.run(lambda connection: store.find(connection, principal, job_id))

    def page(
        self, context: Context, first: int, after: str | None = None, status: Status | None = None
    ) -> tuple[list[Job], bool]:
        """Jobs of the caller, the newest first, as app.jobs.store.page has them."""
        auth.demand(context.key, Scope.TRANSLATE)
        check_page(first)
        return self._database.run(lambda connection: store.page(connection, _owner(context), first, after, status))

    def callback(self, job: Job) -> Callback | None:
        """What became of telling the end of a job that was found."""
        return self._database.run(lambda connection: webhooks.find(connection, job.number))

    def segments(self, job: Job, first: int, after: int = -1) -> tuple[list[Segment], bool]:
        """Texts of a job that was found, as app.jobs.store.segments has them."""
        check_page(first)
        return self._database.run(lambda connection: store.segments(connection, job.number, first, after))

    def _change(self, context: Context, job_id: str, change: Any) -> Job:
        auth.demand(context.key, Scope.TRANSLATE)

        def run(connection: Connection) -> Job:
            job = store.known(connection, _owner(context), job_id)
            change(connection, job)
            return Job.of(store.lock(connection, job.number))

        return self._database.run(run)


def _owner(context: Context) -> str:
    return context.principal or ""


def _earlier(connection: Connection, context: Context, wanted: Submission) -> Job | None:
    """The job that was submitted with the same idempotency key."""
    if wanted.idempotency_key is None:
        return None
    found = store.find_by_idempotency_key(connection, _owner(context), wanted.idempotency_key)
    if found is None:
        return None
    job, input_hash = found
    if input_hash != wanted.hash():
        raise refusal("idempotencyKey: it was used with other texts, languages or options. A new job needs a new key.")
    return job


def _is_repeated(connection: Connection, job: Job, offset: int, more: GivenTexts) -> bool:
    """Whether the job has these texts at this place already. Raises TolkError(BAD_INPUT) if others are there, or if
    texts before them are missing."""
    if offset == job.total:
        return not more.rows
    if not 0 <= offset < job.total:
        raise refusal(f"offset: the job has {job.total} texts. Append those from {job.total} on.")
    texts = [row["text"] for row in more.rows]
    if store.texts(connection, job.number, offset, offset + len(texts)) != texts:
        raise refusal(f"offset: the job has other texts at {offset}. It has {job.total}; append those that follow.")
    return True


def _charge(connection: Connection, context: Context, characters: int) -> None:
    if context.key is not None:
        quotas.charge(connection, context.key, characters, quotas.today())


def _limit_unfinished(connection: Connection, principal: str) -> None:
    mine = (table.c.principal == principal) & table.c.status.not_in(ENDED)
    if (connection.scalar(select(func.count()).select_from(table).where(mine)) or 0) >= UNFINISHED:
        raise TolkError(
            Code.OVERLOADED, f"{UNFINISHED} jobs of yours have not ended yet. Wait for one, or cancel one.", 60.0
        )


def _row(context: Context, wanted: Submission, texts: GivenTexts) -> dict[str, Any]:
    now = time.time()
    return {
        "uuid": str(uuid4()),
        "principal": _owner(context),
        "caller": context.caller,
        "idempotency_key": wanted.idempotency_key,
        "input_hash": wanted.hash(),
        "status": Status.OPEN if wanted.open else Status.QUEUED,
        "source": texts.source or wanted.source,
        "target": texts.target,
        "wanted": wanted.model,
        "model": merged(None, texts.models),
        "assume": wanted.assume,
        "lines": wanted.lines,
        "priority": wanted.priority,
        "callback_url": wanted.callback_url,
        "created": now,
        "deadline": wanted.deadline or now + USUAL,
        "retention": context.settings.job_days * DAY,
        "total": len(texts.rows),
        "waiting": texts.count(State.WAITING),
        "translated": texts.count(State.TRANSLATED),
        "failed": texts.count(State.FAILED),
        "characters": texts.characters,
        "charged": texts.characters if context.key is not None else 0,
        "charged_day": quotas.today(),
    }
