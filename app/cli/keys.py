"""`flask --app app keys`: creates, lists and changes API keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import click
from flask.cli import AppGroup
from sqlalchemy import Connection

from app.accounts import keys as stored
from app.accounts import quotas
from app.accounts.keys import Key, Scope
from app.cli.database import said, the_database

keys = AppGroup("keys", help="Manage API keys: who may send requests, for what, and how many.")
LIMITS = (
    click.option("--requests-per-minute", type=click.IntRange(1, 1_000_000), help="Default: no limit."),
    click.option("--characters-per-day", type=click.IntRange(1, 10**12), help="Default: no limit."),
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
    help="What the key allows. May be given several times.",
)
@LIMITS[0]
@LIMITS[1]
def create(name: str, scopes: Sequence[str], requests_per_minute: int | None, characters_per_day: int | None) -> None:
    """Make a key called NAME and print it. It cannot be shown again, because only a hash of it is stored."""
    _print_secret(
        lambda connection: stored.create(connection, name, map(Scope, scopes), requests_per_minute, characters_per_day)
    )


@keys.command("list")
def list_() -> None:
    """List all keys, revoked ones too, and what they have used today."""
    with said():
        rows = the_database().run(
            lambda connection: [(key, quotas.used(connection, key)) for key in stored.listed(connection)]
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
    """Revoke the key called NAME for good. All web processes refuse it within 2 seconds."""
    with said():
        the_database().run(lambda connection: stored.revoke(connection, name))
    click.echo(f"{name} is revoked.")


@keys.command("rotate")
@click.argument("name")
@click.option("--keep", type=float, default=0.0, help="Seconds for which the old secret stays valid.")
def rotate(name: str, keep: float) -> None:
    """Make and print a new secret for the key called NAME. Its scopes, limits and usage stay."""
    _print_secret(lambda connection: stored.rotate(connection, name, keep))


@keys.command("limit")
@click.argument("name")
@LIMITS[0]
@LIMITS[1]
def limit(name: str, requests_per_minute: int | None, characters_per_day: int | None) -> None:
    """Set the limits of the key called NAME. A limit whose option is left out is lifted."""
    with said():
        the_database().run(
            lambda connection: stored.limit(
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
    """A time. Earlier releases kept old secrets for any number of seconds, also beyond what a calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError):
        return "the key is revoked"


def _print_secret(make: Callable[[Connection], str]) -> None:
    """Prints the secret alone on standard output, so that a script can store it from there."""
    with said():
        secret = the_database().run(make)
    click.echo("This key is shown only once. Clients send it in the header `Authorization: Bearer KEY`:", err=True)
    click.echo(secret)
