"""`flask --app app database`: migrates the tables up and down."""

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

database = AppGroup("database", help="Migrate the tables of DATABASE_URL.")


@database.command("upgrade")
@click.argument("revision", default="head")
def upgrade(revision: str) -> None:
    """Bring the tables up to REVISION (default: the newest)."""
    with said():
        the_database().upgrade(revision)
        click.echo(f"The database is at revision {the_database().revision()}.")


@database.command("downgrade")
@click.argument("revision")
@click.confirmation_option(prompt="Data that only later revisions hold will be lost. Go on?")
def downgrade(revision: str) -> None:
    """Take the tables back to an earlier REVISION; `base` drops them with all their data."""
    with said():
        the_database().downgrade(revision)
        click.echo(f"The database is at revision {the_database().revision() or 'base'}.")


def the_database() -> Database:
    """The database of the current application."""
    database: Database = current_app.extensions["database"]
    return database


@contextmanager
def said() -> Iterator[None]:
    """Turns an error of the service or the database into a command-line error of one sentence."""
    try:
        yield
    except TolkError as error:
        raise click.ClickException(error.message) from error
    except (DBAPIError, CommandError) as error:
        raise click.ClickException(str(error.orig if isinstance(error, DBAPIError) else error).strip()) from error
