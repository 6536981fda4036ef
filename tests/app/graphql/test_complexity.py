"""What a document may hold, and that to find out costs little, whatever is sent."""

from __future__ import annotations

import time

import pytest
from flask.testing import FlaskClient
from graphql import get_introspection_query

from app.graphql.complexity import MAX_ALIASES, MAX_DEPTH, MAX_DIRECTIVES, MAX_FIELDS
from app.web.errors import MESSAGE_CHARACTERS

FULL_INTROSPECTION = get_introspection_query(
    descriptions=True,
    specified_by_url=True,
    directive_is_repeatable=True,
    schema_description=True,
    input_value_deprecation=True,
)


def types(fields: str) -> str:
    return f"{{ __schema {{ types {{ {fields} }} }} }}"


def message(client: FlaskClient, document: str) -> str:
    """Of the one error that refuses the document."""
    answer = client.post("/graphql", json={"query": document})
    assert answer.status_code == 400
    [error] = answer.json["errors"]
    assert error["extensions"]["code"] == "BAD_INPUT"
    return str(error["message"])


@pytest.mark.parametrize("address", ["/graphql", "/api/graphql"])
def test_introspection_passes_with_everything_it_can_ask(client: FlaskClient, address: str) -> None:
    answer = client.post(address, json={"query": FULL_INTROSPECTION})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("within", "beyond", "said"),
    [
        (
            types("ofType { " * (MAX_DEPTH - 3) + "name" + " }" * (MAX_DEPTH - 3)),
            types("ofType { " * (MAX_DEPTH - 2) + "name" + " }" * (MAX_DEPTH - 2)),
            f"{MAX_DEPTH} levels of fields",
        ),
        (
            types("name " * (MAX_FIELDS - 2)),
            types("name " * (MAX_FIELDS - 1)),
            f"{MAX_FIELDS} fields, fragments expanded",
        ),
        (
            types(" ".join(f"a{i}: name" for i in range(MAX_ALIASES))),
            types(" ".join(f"a{i}: name" for i in range(MAX_ALIASES + 1))),
            f"{MAX_ALIASES} aliases, fragments expanded",
        ),
        (
            "query($y: Boolean = true) " + types("name @skip(if: $y) " * MAX_DIRECTIVES),
            "query($y: Boolean = true) " + types("name @skip(if: $y) " * (MAX_DIRECTIVES + 1)),
            f"{MAX_DIRECTIVES} directives, fragments expanded",
        ),
        (
            types(f"{'n' * 100}: name"),
            types(f"{'n' * 101}: name"),
            "at most 100 characters, not 101",
        ),
    ],
    ids=["depth", "fields", "aliases", "directives", "name"],
)
def test_a_limit_is_kept_to_the_last_and_named_beyond(client: FlaskClient, within: str, beyond: str, said: str) -> None:
    assert client.post("/graphql", json={"query": within}).status_code == 200
    assert said in message(client, beyond)


def fragments(count: int, spreads: str, last: str) -> str:
    """A chain of fragments, each of which spreads the next as often as `spreads` does."""
    chain = [f"fragment F{i} on __Type {{ {spreads.format(i + 1)} }}" for i in range(count)]
    return types("...F0") + " ".join(chain) + f" fragment F{count} on __Type {{ {last} }}"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (fragments(100, "...F{0} ...F{0}", "name"), "fields, fragments expanded"),
        (fragments(9, "...F{0} ...F{0}", "a: name"), "fields, fragments expanded"),
        (fragments(4, "...F{0} ...F{0}", "a: name"), "aliases, fragments expanded"),
        (fragments(5, "...F{0} ... on __Type {{ ...F{0} }}", "name @skip(if: true)"), "directives, fragments expanded"),
        (fragments(9, "ofType {{ ofType {{ ...F{0} }} }}", "name"), "levels of fields"),
        (fragments(3, "...F{0}", "...F0"), "The fragment F0 spreads itself"),
        ("{ ...A } fragment A on Query { ...A }", "The fragment A spreads itself"),
        ("{ __typename } fragment A on Query { ...B } fragment B on Query { __typename ...A }", "spreads itself"),
        ("{ __typename } fragment A on Query { languages { " + "source " * MAX_FIELDS + "} }", "fields"),
    ],
)
def test_fragments_are_counted_where_they_are_spread(client: FlaskClient, document: str, said: str) -> None:
    started = time.thread_time()
    assert said in message(client, document)
    assert time.thread_time() - started < 1


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{ a: status { broker } b: status { broker } }", "status: a request asks for it only once"),
        ("{ status { broker } ...F } fragment F on Query { ... { b: status { broker } } }", "status: a request"),
        (
            '{ __type(name: "Query") { name } b: __type(name: "Query") { name } }',
            "__type: a request asks for it only once",
        ),
        ("{ " + " ".join(f"s{i}: status {{ broker }}" for i in range(50)) + " }", f"{MAX_ALIASES} aliases"),
    ],
)
def test_a_field_at_the_root_is_asked_for_once(client: FlaskClient, document: str, said: str) -> None:
    assert said in message(client, document)


def test_what_is_executed_once_may_stand_there_twice(client: FlaskClient) -> None:
    document = "{ a: __typename b: __typename languages { source } ...F } fragment F on Query { languages { target } }"
    answer = client.post("/graphql", json={"query": document})
    languages = [{"source": "fr", "target": "en"}, {"source": "en", "target": "fr"}]
    assert answer.json == {"data": {"a": "Query", "b": "Query", "languages": languages}}


MEGABYTE = 1_200_000


@pytest.mark.parametrize(
    "document",
    [
        " " * MEGABYTE + "{ a }",
        "{" + "\n" * (MEGABYTE // 2) + " ".join(f"a{i}" for i in range(300)) + "}",
        "{" + "\r" * 8_000 + " ".join(f"a{i}" for i in range(40)) + "}",
        "#" + "x" * MEGABYTE + "\n{ a }",
        "#\n" * (MEGABYTE // 3) + "{ a }",
        "\ufeff" * (MEGABYTE // 6) + "{ a }",
        "{ " + "a" * MEGABYTE + " }",
        "query " + "A" * MEGABYTE + " { languages { source " + "... @skip(if: $a) { source } " * 15 + " } }",
        "query($a: Int = " + "1" * MEGABYTE + ") { languages { source } }",
        "mutation { translate(input: " + "A" * MEGABYTE + ") { model } }",
        'mutation { translate(input: {texts: "", target: "en", timeout: "' + "x" * MEGABYTE + '"}) { model } }',
        'mutation { translate(input: {texts: """' + " a\n" * (MEGABYTE // 4) + '""", target: 1}) { model } }',
        "{ languages { " + "source " * (MEGABYTE // 7) + "} }",
        "{ " + "languages { source } " * (MEGABYTE // 21) + "}",
        "{ " + "...F " * (MEGABYTE // 5) + "}",
        "fragment F on Query { a } " * (MEGABYTE // 26),
        "{" * MEGABYTE,
        "[" * MEGABYTE,
        "mutation { translate(input: " + "[" * MEGABYTE + ") { model } }",
        '"' * (MEGABYTE // 2),
        '{ languages(a: "' + "\\" * (MEGABYTE // 2) + '") { source } }',
    ],
)  # fmt: skip
def test_a_megabyte_is_refused_in_little_time_and_with_few_words(client: FlaskClient, document: str) -> None:
    started = time.thread_time()
    answer = client.post("/graphql", json={"query": document})
    assert time.thread_time() - started < 1
    assert answer.status_code == 400
    assert len(answer.data) < 100 * 1_000  # a hundred errors at most
    assert all(len(error["message"]) <= MESSAGE_CHARACTERS + 1 for error in answer.json["errors"])
