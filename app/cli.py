"""What `flask --app app` can do besides `run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from alembic.util import CommandError
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app import keys as app_keys
from app import quotas
from app.database import Database
from app.keys import Key, Scope
from app.schema import build_schema
from app.settings import REPOSITORY
from tasks.contract import TolkError

schema = AppGroup("schema", help="The GraphQL schema as a file.")


@schema.command("export")
@click.option("--check", is_flag=True, help="Write nothing; fail where the file is not the schema.")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default=REPOSITORY / "schema.graphql")
def export(path: Path, check: bool) -> None:
    """Write the schema to PATH, which is schema.graphql unless you say otherwise."""
    text = f"{build_schema()}\n"
    if not check:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        raise click.ClickException(f"{path} is not the schema: run flask --app app schema export.")


database = AppGroup("database", help="The tables of DATABASE_URL.")


@database.command("upgrade")
@click.argument("revision", default="head")
def upgrade(revision: str) -> None:
    """Bring the tables up to REVISION, which is the newest unless you say otherwise."""
    with _said():
        _database().upgrade(revision)
        click.echo(f"The database is at revision {_database().revision()}.")


@database.command("downgrade")
@click.argument("revision")
@click.confirmation_option(prompt="What later revisions hold will be lost. Go on?")
def downgrade(revision: str) -> None:
    """Take the tables back to an earlier REVISION; `base` drops them, with all they hold."""
    with _said():
        _database().downgrade(revision)
        click.echo(f"The database is at revision {_database().revision() or 'base'}.")


keys = AppGroup("keys", help="API keys: who may ask, for what, and how much.")
LIMITS = (
    click.option("--requests-per-minute", type=click.IntRange(1, 1_000_000), help="None unless you say otherwise."),
    click.option("--characters-per-day", type=click.IntRange(1, 10**12), help="None unless you say otherwise."),
)


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    default=[Scope.TRANSLATE.value],
    show_default=True,
    help="What the key is for; may be given several times.",
)
@LIMITS[0]
@LIMITS[1]
def create(name: str, scopes: Sequence[str], requests_per_minute: int | None, characters_per_day: int | None) -> None:
    """Make a key called NAME and print it, once: only a hash of it is stored."""
    _print_secret(
        lambda connection: app_keys.create(
            connection, name, map(Scope, scopes), requests_per_minute, characters_per_day
        )
    )


@keys.command("list")
def list_() -> None:
    """All keys, revoked ones too, and what they have used today."""
    with _said():
        rows = _database().run(
            lambda connection: [(key, quotas.used(connection, key)) for key in app_keys.listed(connection)]
        )
    row = "{:<24} {:<17} {:>11} {:>24}  {}"
    click.echo(row.format("NAME", "SCOPES", "PER MINUTE", "CHARACTERS TODAY", "STATE"))
    for key, usage in rows:
        click.echo(
            row.format(
                key.name,
                " ".join(sorted(key.scopes)),
                key.requests_per_minute or "-",
                f"{usage.characters} of {usage.limit or '-'}",
                _state(key),
            )
        )


@keys.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """End the key called NAME, for good. Web processes refuse it within 2 seconds."""
    with _said():
        _database().run(lambda connection: app_keys.revoke(connection, name))
    click.echo(f"{name} is revoked.")


@keys.command("rotate")
@click.argument("name")
@click.option("--keep", type=click.FloatRange(0), default=0.0, help="Seconds that the old secret still holds.")
def rotate(name: str, keep: float) -> None:
    """Print a new secret for the key called NAME; scopes, limits and usage stay."""
    _print_secret(lambda connection: app_keys.rotate(connection, name, keep))


@keys.command("limit")
@click.argument("name")
@LIMITS[0]
@LIMITS[1]
def limit(name: str, requests_per_minute: int | None, characters_per_day: int | None) -> None:
    """Set what the key called NAME may ask for; without an option, that limit is lifted."""
    with _said():
        _database().run(
            lambda connection: app_keys.limit(
                connection, name, requests_per_minute=requests_per_minute, characters_per_day=characters_per_day
            )
        )
    click.echo(
        f"{name}: {requests_per_minute or 'any number of'} requests a minute,"
        f" {characters_per_day or 'any number of'} characters a day."
    )


def _state(key: Key) -> str:
    if key.revoked is not None:
        return f"revoked {_date(key.revoked)}"
    made = f"made {_date(key.created)}"
    if key.previous_until is not None and key.previous_until > time.time():
        return f"{made}, its old secret holds until {_date(key.previous_until)}"
    return made


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _print_secret(make: Callable[[Connection], str]) -> None:
    """The secret alone on standard output, so that it can be stored from there."""
    with _said():
        secret = _database().run(make)
    click.echo("This is shown once; it is sent as the header `Authorization: Bearer KEY`:", err=True)
    click.echo(secret)


def _database() -> Database:
    database: Database = current_app.extensions["database"]
    return database


@contextmanager
def _said() -> Iterator[None]:
    """Ends the command with one sentence where it cannot be done."""
    try:
        yield
    except TolkError as error:
        raise click.ClickException(error.message) from error
    except (DBAPIError, CommandError) as error:
        raise click.ClickException(str(error.orig if isinstance(error, DBAPIError) else error).strip()) from error
