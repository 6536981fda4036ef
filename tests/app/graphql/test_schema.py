"""The schema as a file, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
)

from app import create_app
from app.graphql import predecessor, schema
from app.settings import Settings
from app.translation.translator import EchoTranslator


def test_the_committed_schema_is_the_one_served(tmp_path: Path) -> None:
    runner = create_app(Settings(), EchoTranslator()).test_cli_runner()
    copy = str(tmp_path / "schema.graphql")
    assert runner.invoke(args=["schema", "export", "--check"]).exit_code == 0
    missing = runner.invoke(args=["schema", "export", "--check", copy])
    assert missing.exit_code == 1
    assert "schema export" in missing.output
    assert runner.invoke(args=["schema", "export", copy]).exit_code == 0
    assert runner.invoke(args=["schema", "export", "--check", copy]).exit_code == 0


def described(graphql: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    """(name, description) of all that a client can see of a schema, but for what GraphQL itself brings."""
    for name, kind in graphql.type_map.items():
        if name.startswith("__"):
            continue
        yield name, kind.description
        if isinstance(kind, GraphQLEnumType):
            yield from ((f"{name}.{value}", found.description) for value, found in kind.values.items())
        elif isinstance(kind, GraphQLInputObjectType):
            yield from ((f"{name}.{field}", found.description) for field, found in kind.fields.items())
        elif isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field, found in kind.fields.items():
                yield f"{name}.{field}", found.description
                yield from ((f"{name}.{field}({arg})", each.description) for arg, each in found.args.items())


@pytest.mark.parametrize("build", [schema.build_schema, predecessor.build_schema])
def test_everything_in_a_schema_has_a_description(build) -> None:
    found = dict(described(build().graphql_schema))
    assert {"Query", "Query.status", "ErrorCode.TIMEOUT", "Usage.limit"} <= found.keys()
    assert [name for name, description in found.items() if not description] == []
