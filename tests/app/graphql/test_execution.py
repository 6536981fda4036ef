from __future__ import annotations

from typing import Any

import pytest
from graphql import ExecutionResult, GraphQLError, GraphQLSchema, build_schema, execute_sync, parse, validate

from app.graphql import execution
from app.graphql.execution import Document

SCHEMA = """
    type Query { person(name: String = "Ann", age: Age): Person, needed: String!, people: [Person!] }
    type Mutation { rename(name: String!): Person }
    type Person { name: String, age: Int, friends: [Person], broken: String, needed: String! }
    input Age { years: Int!, months: [Int!] = [1] }
"""
DOCUMENTS = [
    ("{ person { name } }", {}, None),
    ("query($n: String) { person(name: $n) { name friends { name } people: friends { age } } }", {"n": "Bob"}, None),
    ("query($n: String!) { person(name: $n) { name } }", {}, None),
    ("query($a: Age) { person(age: $a) { name } }", {"a": {"years": 1, "months": ["x"]}}, None),
    ("query($a: Age) { person(age: $a) { age } }", {"a": {"years": 7}}, None),
    ("{ needed }", {}, None),
    ("{ person { broken friends { broken needed } } people { name needed } }", {}, None),
    ("query($s: Boolean!) { person { name @skip(if: $s) age @include(if: $s) } }", {"s": True}, None),
    ("query($s: Boolean!) { person { name @skip(if: $s) age @include(if: $s) } }", {"s": False}, None),
    (
        "{ person { ...P ... { name } } } fragment P on Person { age friends { ...Q } } fragment Q on Person { age }",
        {},
        None,
    ),
    ("query A { person { name } } query B { person { age } }", {}, "B"),
    ('mutation { rename(name: "Cy") { name age } }', None, None),
]


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    """Its people have an age, a friend, and something that cannot be told."""
    made = build_schema(SCHEMA)

    def person(_root: object, _info: Any, name: str = "Ann", age: Any = None) -> dict[str, Any]:
        friend = {"name": "Eve", "age": 1, "broken": ValueError("friend")}
        return {"name": name, "age": (age or {"years": 2})["years"], "friends": [friend], "broken": ValueError("no")}

    assert made.query_type is not None
    assert made.mutation_type is not None
    made.query_type.fields["person"].resolve = person
    made.query_type.fields["people"].resolve = lambda *_: [{"name": "Ann"}]
    made.mutation_type.fields["rename"].resolve = person
    return made


def plain(result: ExecutionResult) -> tuple[Any, list[Any]]:
    return result.data, [(each.formatted, type(each.original_error)) for each in result.errors or ()]


@pytest.mark.parametrize(("query", "variables", "name"), DOCUMENTS)
def test_a_document_has_the_result_that_graphql_core_has(
    schema: GraphQLSchema, query: str, variables: dict[str, Any] | None, name: str | None
) -> None:
    node = parse(query)
    assert not validate(schema, node)
    wanted = execute_sync(schema, node, variable_values=variables, operation_name=name)
    document = Document.of(node, query)
    operation = document.operation(name)
    assert operation is not None
    for _ in range(2):  # the second time with what the first has kept
        result = execution.execute(schema, document, operation, variables, None)
        assert plain(result) == plain(wanted)


def test_fields_are_collected_once_unless_variables_decide(schema: GraphQLSchema) -> None:
    query = "{ person { name friends { name } } }"
    document = Document.of(parse(query), query)
    operation = document.operation(None)
    assert operation is not None
    kept = []
    for _ in range(2):
        execution.execute(schema, document, operation, None, None)
        assert document.selections is not None
        kept.append({key: id(fields) for key, fields in document.selections.items()})
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2
    query = "{ person { name @skip(if: false) } }"
    assert Document.of(parse(query), query).selections is None


def test_what_nobody_foresaw_is_a_result_too(schema: GraphQLSchema, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(execution.Execution, "execute_operation", fail)
    document = Document.of(parse("{ person { name } }"), "")
    operation = document.operation(None)
    assert operation is not None
    [error] = execution.execute(schema, document, operation, None, None).errors or ()
    assert isinstance(error, GraphQLError)
    assert isinstance(error.original_error, RuntimeError)
