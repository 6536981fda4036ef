"""`flask --app app schema`: the GraphQL schema as a file."""

from __future__ import annotations

from pathlib import Path

import click
from flask.cli import AppGroup

from app.graphql.schema import build_schema
from app.settings import REPOSITORY

schema = AppGroup("schema", help="The GraphQL schema as a file.")


@schema.command("export")
@click.option("--check", is_flag=True, help="Write nothing; fail if the file differs from the schema.")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default=REPOSITORY / "schema.graphql")
def export(path: Path, check: bool) -> None:
    """Write the schema to PATH (default: schema.graphql)."""
    text = f"{build_schema()}\n"
    if not check:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        raise click.ClickException(f"{path} is not the schema: run flask --app app schema export.")
