"""`flask --app app database`: the tables, brought up to date and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from alembic.util import CommandError
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy.exc import DBAPIError

from app.database.transactions import Database
from tasks.contract.errors import TolkError

database = AppGroup("database", help="The tables of DATABASE_URL.")


@database.command("upgrade")
@click.argument("revision", default="head")
def upgrade(revision: str) -> None:
    """Bring the tables up to REVISION, which is the newest unless you say otherwise."""
    with said():
        the_database().upgrade(revision)
        click.echo(f"The database is at revision {the_database().revision()}.")


@database.command("downgrade")
@click.argument("revision")
@click.confirmation_option(prompt="What later revisions hold will be lost. Go on?")
def downgrade(revision: str) -> None:
    """Take the tables back to an earlier REVISION; `base` drops them, with all they hold."""
    with said():
        the_database().downgrade(revision)
        click.echo(f"The database is at revision {the_database().revision() or 'base'}.")


def the_database() -> Database:
    """Of the application whose command runs."""
    database: Database = current_app.extensions["database"]
    return database


@contextmanager
def said() -> Iterator[None]:
    """Ends the command with one sentence where it cannot be done."""
    try:
        yield
    except TolkError as error:
        raise click.ClickException(error.message) from error
    except (DBAPIError, CommandError) as error:
        raise click.ClickException(str(error.orig if isinstance(error, DBAPIError) else error).strip()) from error
