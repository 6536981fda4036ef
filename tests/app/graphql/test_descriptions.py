"""Whoever explores the API in GraphiQL finds a sentence on everything in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
)

from app.graphql import predecessor, schema


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
