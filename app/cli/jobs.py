"""`flask --app app jobs`: submits files as jobs, and shows, ends, and collects jobs, on the service's own machine."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TextIO
from uuid import uuid4

import click
from flask.cli import AppGroup

from app.accounts import keys as stored
from app.accounts.keys import Key
from app.accounts.ledger import Ledger
from app.accounts.repeats import Repeats
from app.cli.database import said, the_database
from app.jobs import delivery, sweep
from app.jobs.download import lines
from app.jobs.job import ENDED, Job, Status
from app.jobs.limits import CALL_TEXTS, Submission
from app.jobs.submission import Jobs
from app.monitoring.recent_errors import RecentErrors
from app.settings import JOB_CALL_BYTES, Settings
from app.translation.context import Context
from app.translation.translator import EchoTranslator
from tasks.contract.errors import TolkError
from tasks.registry.file import RegistryFile

POLL = 1.0  # seconds between two looks at a job that is waited for
ROW = "{:<36}  {:<9}  {:>17}  {:<8}  {:<16}  {}"

jobs = AppGroup("jobs", help="Translate files as jobs, and look after jobs.")
KEY = click.option("--key", "name", help="The name of the key whose jobs they are. Default: those of this machine.")
JOB = click.argument("job_id", type=click.UUID)


@jobs.command("submit")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--source", help="The language of the texts. Default: each text's is detected.")
@click.option("--target", required=True, help="The language to translate into.")
@click.option("--model", help="A model's name. Default: the first that fits.")
@click.option("--wait", is_flag=True, help="Return when the job has ended, and show how far it is.")
@KEY
def submit(file: TextIO, source: str | None, target: str, model: str | None, name: str | None, *, wait: bool) -> None:
    """Make a job of the lines of FILE (`-`: standard input) and print its id."""
    with said():
        context, all_jobs = _context(name), Jobs(the_database())
        job = all_jobs.submit(context, Submission((), target, source, model, open=True))
        try:
            for batch in _batches(line.rstrip("\r\n") for line in file):
                job = all_jobs.append(context, job.id, job.total, batch)
            job = all_jobs.start(context, job.id)
        except BaseException as error:
            all_jobs.cancel(context, job.id)
            if isinstance(error, UnicodeDecodeError):
                raise click.ClickException(f"{file.name}: text in UTF-8 was expected ({error}).") from error
            raise
        click.echo(job.id)
        if wait:
            _follow(all_jobs, job, name)


@jobs.command("list")
@click.option("--status", type=click.Choice([each.value for each in Status]), help="Only jobs that stand there.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="How many, at most.")
@KEY
def list_(status: str | None, limit: int, name: str | None) -> None:
    """List jobs, the newest first."""
    with said():
        found, more = Jobs(the_database()).page(_context(name), limit, None, Status(status) if status else None)
    click.echo(ROW.format("ID", "STATUS", "DONE OF TOTAL", "LANGUAGE", "CREATED (UTC)", "ERROR"))
    for job in found:
        done = f"{job.done} of {job.total}"
        error = job.error.message if job.error else ""
        click.echo(ROW.format(job.id, job.status, done, job.target, _time(job.created), error))
    if more:
        click.echo("There are more; see --limit.", err=True)


@jobs.command("show")
@JOB
@KEY
def show(job_id: object, name: str | None) -> None:
    """Show all about the job JOB_ID, but its texts."""
    with said():
        all_jobs = Jobs(the_database())
        job = _known(all_jobs, _context(name), str(job_id))
        callback = all_jobs.callback(job)
    fields = {
        "id": job.id,
        "status": job.status,
        "done": f"{job.done} of {job.total}, {job.failed} failed",
        "languages": f"{job.source or 'detected'} to {job.target}",
        "model": job.model,
        "created": _time(job.created),
        "started": _time(job.started),
        "finished": _time(job.finished),
        "expires": _time(job.expires),
        "error": job.error and f"{job.error.code}: {job.error.message}",
        "callback": job.callback_url,
    }
    if callback is not None:
        told, again = _time(callback.delivered), _time(callback.next_attempt)
        state = f"delivered {told}" if told else f"next attempt {again}" if again else "given up"
        fields["callback state"] = f"{state}, {callback.attempts} attempts. {callback.error or ''}".strip()
    for field, value in fields.items():
        if value is not None:
            click.echo(f"{field}: {value}")


@jobs.command("wait")
@JOB
@KEY
def wait_(job_id: object, name: str | None) -> None:
    """Return when the job JOB_ID has ended, and show how far it is."""
    with said():
        all_jobs = Jobs(the_database())
        _follow(all_jobs, _known(all_jobs, _context(name), str(job_id)), name)


@jobs.command("cancel")
@JOB
@KEY
def cancel(job_id: object, name: str | None) -> None:
    """End the job JOB_ID. What was translated stays."""
    with said():
        job = Jobs(the_database()).cancel(_context(name), str(job_id))
    click.echo(f"{job.id} is {job.status}: {job.translated} of {job.total} texts are translated.")


@jobs.command("retry")
@JOB
@KEY
def retry(job_id: object, name: str | None) -> None:
    """Start the job JOB_ID once more, for the texts that have no translation."""
    with said():
        job = Jobs(the_database()).retry(_context(name), str(job_id))
    click.echo(f"{job.id} is {job.status}: {job.total - job.done} texts are left.")


@jobs.command("download")
@click.option("--format", "form", type=click.Choice(["tsv", "ndjson"]), default="tsv", show_default=True)
@click.option("--output", type=click.File("w", encoding="utf-8", lazy=True), default="-", help="Default: the terminal.")
@JOB
@KEY
def download(job_id: object, form: str, output: TextIO, name: str | None) -> None:
    """Write the texts of the job JOB_ID and their translations."""
    with said():
        all_jobs = Jobs(the_database())
        for part in lines(all_jobs, _known(all_jobs, _context(name), str(job_id)), form):
            output.write(part)


@jobs.command("purge")
def purge() -> None:
    """Delete the jobs of everybody that have expired, as the results worker does every ten minutes."""
    with said():
        while the_database().run(sweep.purge):
            pass
    click.echo("No job is kept beyond its time.")


@jobs.command("webhook-secret")
@click.argument("name", required=False)
def webhook_secret(name: str | None) -> None:
    """Print the secret that signs the callbacks of the jobs of the key NAME, or of this machine."""
    secret = Settings.from_env(os.environ).webhook_secret
    if secret is None:
        raise click.ClickException("TOLK_WEBHOOK_SECRET is not set, so no job calls back.")
    with said():
        key = _key(name)
    click.echo(delivery.spelled(delivery.secret_of(secret, key.principal if key else "")))


def _context(name: str | None) -> Context:
    """The context of a request of the key with this name, or of this machine. Nothing is translated in it."""
    settings, key, ledger = Settings.from_env(os.environ), _key(name), Ledger(the_database())
    return Context(
        settings,
        RegistryFile(settings.models).current(),
        EchoTranslator(),
        str(uuid4()),
        time.time(),
        key,
        key.principal if key else "local",
        ledger,
        Repeats(ledger),
        RecentErrors(),
    )


def _key(name: str | None) -> Key | None:
    if name is None:
        return None
    for key in the_database().run(stored.listed):
        if key.name == name and key.revoked is None:
            return key
    raise click.ClickException(f"There is no key {name!r}: flask --app app keys list shows those that there are.")


def _known(all_jobs: Jobs, context: Context, job_id: str) -> Job:
    job = all_jobs.find(context.principal or "", job_id)
    if job is None:
        raise click.ClickException(f"There is no job {job_id} here, or it has expired. With --key, it is that key's.")
    return job


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in parts that one call may have."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if batch and (len(batch) == CALL_TEXTS or size + length > JOB_CALL_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch


def _follow(all_jobs: Jobs, job: Job, name: str | None) -> None:
    """Returns when a job has ended. On a terminal, a bar shows how far it is. Raises ClickException if it did not
    succeed."""
    try:
        with click.progressbar(length=job.total, label=job.status, file=sys.stderr) as bar:
            bar.update(job.done)
            while job.status not in ENDED:
                time.sleep(POLL)
                found = all_jobs.find(job.principal, job.id)
                if found is None:
                    raise click.ClickException("The job was deleted.")
                done, job = job.done, found
                bar.label = job.status
                bar.update(job.done - done)
    except (KeyboardInterrupt, TolkError):
        key = f" --key {shlex.quote(name)}" if name else ""
        click.echo(f"The job goes on. To wait for it again: flask --app app jobs wait {job.id}{key}", err=True)
        raise
    if job.status is not Status.SUCCEEDED:
        raise click.ClickException(job.error.message if job.error else f"The job is {job.status}.")


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
