"""`flask --app app dead-letters`: lists, shows, requeues and deletes the messages that no worker could process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from flask.cli import AppGroup

from app.cli.database import said
from tasks.contract.errors import TolkError

if TYPE_CHECKING:
    from app.broker.dead_letters import DeadLetterQueue, Letter

dead_letters = AppGroup("dead-letters", help="Manage dead letters, the messages that no worker could process.")


@dead_letters.command("list")
def list_letters() -> None:
    """List the dead letters, the oldest first, without their texts."""
    with _opened() as letters:
        rows = [(each.id, each.died, each.queue, each.deliveries, len(each.body), each.reason) for each in letters]
    if not rows:
        click.echo("There are no dead letters.")
        return
    table = [("ID", "DIED", "QUEUE", "DELIVERIES", "BYTES", "REASON"), *rows]
    widths = [max(len(str(row[column])) for row in table) for column in range(5)]
    for row in table:
        click.echo("  ".join(str(value).ljust(width) for value, width in zip(row, [*widths, 0], strict=True)))


@dead_letters.command("show")
@click.option("--texts", is_flag=True, help="Show the body too, with the client's texts.")
@click.argument("letter_id", metavar="ID")
def show(letter_id: str, *, texts: bool) -> None:
    """Show what is known of the dead letter ID, and what is wrong with it."""
    with _opened() as letters:
        for letter in _found(letters, letter_id):
            click.echo("\n".join(f"{name:<24}{value}" for name, value in letter.describe().items()))
            if texts:
                click.echo(f"\n{letter.readable()}")


@dead_letters.command("requeue")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option(
    "--force",
    is_flag=True,
    help="Also requeue requests whose deadline has passed, to see if workers process them now.",
)
@click.argument("letter_id", metavar="ID", required=False)
def requeue(letter_id: str | None, *, everything: bool, force: bool) -> None:
    """Put the dead letter ID, or all, back into the queues that they came from. Those that cannot be put back stay."""
    _check_choice(letter_id, everything=everything)
    done = left = 0
    with _opened() as letters:
        for letter in _found(letters, letter_id):
            try:
                letters.requeue(letter, force=force)
                done += 1
            except TolkError as error:
                click.echo(error.message, err=True)
                left += 1
    click.echo(f"{done} put back, {left} left.")
    if left:
        raise SystemExit(1)


@dead_letters.command("purge")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("letter_id", metavar="ID", required=False)
def purge(letter_id: str | None, *, everything: bool, yes: bool) -> None:
    """Delete the dead letter ID, or all of them, for good."""
    _check_choice(letter_id, everything=everything)
    if not yes:
        click.confirm(f"Delete {'all dead letters' if everything else letter_id} for good?", abort=True)
    done = 0
    with _opened() as letters:
        for letter in _found(letters, letter_id):
            letters.delete(letter)
            done += 1
    click.echo(f"{done} deleted.")


@contextmanager
def _opened() -> Iterator[DeadLetterQueue]:
    from app.broker import dead_letters  # imported here because other commands need no Celery

    with said(), dead_letters.opened() as letters:
        yield letters


def _found(letters: DeadLetterQueue, letter_id: str | None) -> Iterator[Letter]:
    """The letters with this id, or all if it is None. Two letters have one id if a message was published twice."""
    found = False
    for letter in letters:
        if letter_id in (None, letter.id):
            found = True
            yield letter
    if letter_id is not None and not found:
        raise click.ClickException(f"There is no dead letter {letter_id}.")


def _check_choice(letter_id: str | None, *, everything: bool) -> None:
    if (letter_id is not None) == everything:
        raise click.UsageError("Give the ID of one dead letter, or --all.")
