"""`flask --app app trace`: shows what became of a request, and how long each part of it took."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from uuid import UUID

import click
from flask import current_app
from flask.cli import with_appcontext

from telemetry.tracing import Span


@click.command("trace")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each request with that id.")
@click.argument("request_id", type=click.UUID)
@with_appcontext
def trace(request_id: UUID, *, as_json: bool) -> None:
    """Show the parts of the request REQUEST_ID and their times. The web tier of a host keeps the traces of its last
    tens of thousands of requests."""
    traces = current_app.extensions["traces"]
    if traces is None:
        raise click.ClickException("No traces are kept: TOLK_TRACES is off.")
    try:
        found = traces.find(str(request_id))
    except PermissionError as error:
        raise click.ClickException(f"{error.filename}: only the user who runs the web tier may read it.") from error
    if not found:
        raise click.ClickException(f"There is no trace of {request_id} here: it is too old, or another host's.")
    for each in found:
        click.echo(json.dumps(asdict(each)) if as_json else _tree(each))


def _tree(trace: Span) -> str:
    """One line for each span: when it began and how long it took, in milliseconds, and its attributes."""
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(trace.start))
    lines = [f"{began} UTC, {_attributes(trace)}", "   start ms  took ms"]
    for depth, span in trace.walk():
        row = f"{1000 * (span.start - trace.start):11.1f}{1000 * span.duration:9.1f}  {'  ' * depth}{span.name}"
        lines.append(f"{row}  {_attributes(span)}".rstrip() if depth else row)
    return "\n".join(lines)


def _attributes(span: Span) -> str:
    return " ".join(f"{name}={value}" for name, value in span.attributes.items())
