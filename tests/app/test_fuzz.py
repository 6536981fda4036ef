"""Documents made up from the schema, valid and nearly so, with variables of any kind: an answer or a clear error."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import requests
from flask.testing import FlaskClient
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    get_named_type,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import create_app
from app.broker.rpc import CeleryTranslator
from app.graphql import predecessor, schema
from app.settings import Settings
from launch.rabbitmq import PrivateRabbitMQ
from tasks.registry.file import RegistryFile

SCHEMAS = {"/graphql": schema.build_schema(), "/api/graphql": predecessor.build_schema()}
NAMES = ["a", "source", "languages", "input", "__typename", "__schema", "F0", "é", "x" * 101, "$", "null"]
WRONG = [
    "null",
    "1",
    "-1e999",
    '"x"',
    "true",
    "[[]]",
    "{a: 1}",
    "ENUM",
    "$undefined",
    "$input",
    "#",
    '"""',
    "{",
    "\x00",
]
GOOD = {  # by argument
    "source": "fr",
    "target": "en",
    "model": "fr-en",
    "after": None,
    "deadline": None,
    "callbackUrl": None,
    "idempotencyKey": "a",
    "preserve": "Un",
}
CODES = {"UNAVAILABLE", "OVERLOADED", "TIMEOUT"}  # that may be the service's answer to a request that is in order

fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
texts = st.text(st.characters(codec=None), max_size=20)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | texts, inner, max_size=3),
    max_leaves=6,
)


def takes_id(field: GraphQLField) -> bool:
    """Whether a field is about something that has to be there."""
    return any(get_named_type(argument.type).name == "ID" for argument in field.args.values())


class Writer:
    """Writes one document; `draw` decides everything, and now and then for something that is wrong."""

    def __init__(self, draw: st.DrawFn, schema: GraphQLSchema, faults: bool) -> None:
        self.draw = draw
        self.schema = schema
        self.faults = faults
        self.fragments: list[str] = []
        self.input = "TranslateInput"  # the type of the variable

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(1, one_in)) == 1

    def fault(self) -> bool:
        return self.faults and self.chance(30)

    def document(self) -> str:
        mutation = self.schema.mutation_type
        kind = "mutation" if mutation and self.chance(2) else "query"
        root = mutation if kind == "mutation" else self.schema.query_type
        assert root is not None
        written = " ".join([self.selection(root, 4), *self.fragments])
        # It has to be declared where it is used, and only there.
        declared = f"($input: {self.input}!)" if ("$input" in written) != self.fault() else ""
        return f"{kind} Q{declared} {written}"

    def selection(self, kind: GraphQLObjectType, depth: int) -> str:
        known = [name for name, field in kind.fields.items() if self.faults or not takes_id(field)]
        names = self.draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3, unique=True))
        if kind is self.schema.mutation_type:
            names = names[:1]
        written = [self.field(name, kind.fields[name], depth) for name in names]
        if self.chance(6):
            written.append("__typename")
        if self.fault():
            written.append(self.draw(st.sampled_from(NAMES)))
        if self.chance(8):
            written = [
                f"... on {kind.name} @include(if: {self.draw(st.sampled_from(['true', 'false']))}) {{",
                *written,
                "}",
            ]
        if self.chance(8):
            name = f"F{len(self.fragments)}"
            self.fragments.append("")
            cycle = f" ...{name}" if self.fault() else ""
            self.fragments[int(name[1:])] = f"fragment {name} on {kind.name} {{ {' '.join(written)}{cycle} }}"
            written = [f"...{name}"] * (2 if self.chance(3) else 1)
        return "{ " + " ".join(written) + " }"

    def field(self, name: str, field: GraphQLField, depth: int) -> str:
        alias = f"{self.draw(st.sampled_from(['a', 'b', name]))}: " if self.chance(6) else ""
        given = [
            f"{each}: {self.value(each, argument.type)}" for each, argument in field.args.items() if not self.fault()
        ]
        arguments = f"({', '.join(given)})" if given else ""
        kind = get_named_type(field.type)
        if isinstance(kind, GraphQLObjectType) and not self.fault():
            return f"{alias}{name}{arguments} {self.selection(kind, depth - 1) if depth else '{ __typename }'}"
        return f"{alias}{name}{arguments}{' { a }' if self.fault() else ''}"

    def value(self, name: str, kind: GraphQLInputType) -> str:
        if self.fault():
            return self.draw(st.sampled_from(WRONG))
        match kind:
            case GraphQLNonNull():
                return self.value(name, kind.of_type)
            case GraphQLList():
                return f"[{', '.join(self.value(name, kind.of_type) for _ in range(self.draw(st.integers(0, 3))))}]"
            case GraphQLInputObjectType():
                if self.chance(4):
                    self.input = self.input if self.fault() else kind.name
                    return "$input"
                fields = [f"{each}: {self.value(each, field.type)}" for each, field in kind.fields.items()]
                return f"{{{', '.join(field for field in fields if not self.fault())}}}"
            case GraphQLEnumType():
                return self.draw(st.sampled_from(sorted(kind.values)))
            case GraphQLScalarType(name="Float" | "Int"):
                return self.draw(st.sampled_from(["0", "-1", "61", "1e-300", "1e400"])) if self.fault() else "10"
        return json.dumps(GOOD[name] if name in GOOD and not self.fault() else self.draw(texts))


@st.composite
def bodies(draw: st.DrawFn, address: str, faults: bool = True) -> dict[str, Any]:
    document = Writer(draw, SCHEMAS[address].graphql_schema, faults).document()
    if faults and draw(st.integers(1, 10)) == 1:
        at = draw(st.integers(0, len(document)))
        document = document[:at] + draw(st.sampled_from([*WRONG, "", *"{}()[]:!$@\"'"])) + document[at + 1 :]
    plain = {"texts": ["Un."], "target": "en"}
    return {"query": document, "variables": {"input": draw(st.just(plain) | anything)}}


def check(status: int, body: bytes) -> None:
    answer = json.loads(body)
    for error in answer.get("errors", []):
        assert error["extensions"]["code"] != "INTERNAL", answer
    assert status < 500 or {error["extensions"]["code"] for error in answer["errors"]} <= CODES, answer
    assert len(body) < 100_000


@pytest.mark.parametrize("address", SCHEMAS)
@fuzz
@given(data=st.data())
def test_any_document_is_answered(client: FlaskClient, address: str, data: st.DataObject) -> None:
    answer = client.post(address, json=data.draw(bodies(address)))
    check(answer.status_code, answer.data)


@pytest.mark.parametrize("address", SCHEMAS)
def test_most_are_served_where_nothing_is_made_wrong(client: FlaskClient, address: str) -> None:
    """Else the test above would only show how things are refused."""
    found: list[int] = []

    @fuzz
    @given(bodies(address, faults=False))
    def send(body: dict[str, Any]) -> None:
        found.append(
            client.post(address, json={**body, "variables": {"input": {"texts": ["Un."], "target": "en"}}}).status_code
        )

    send()
    assert found.count(200) > len(found) / 2


@pytest.fixture(scope="module")
def web(start_gunicorn: Callable[..., Any], eventually: Callable[..., None]) -> Iterator[Any]:
    web = start_gunicorn()
    yield web
    assert web.answers()
    eventually(lambda: all(worker.num_fds() < 30 for worker in web.workers))
    assert not web.service.says("Traceback")


@fuzz
@given(data=st.data())
def test_a_real_server_answers_any_document(web: Any, data: st.DataObject) -> None:
    address = data.draw(st.sampled_from(sorted(SCHEMAS)))
    body = data.draw(bodies(address)).copy()
    answer = requests.post(
        web.url + address, data=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=10
    )
    check(answer.status_code, answer.content)


@pytest.mark.broker
def test_the_queue_is_as_it_was_after_any_document(
    broker: PrivateRabbitMQ, start_worker: Callable[..., Any], eventually: Callable[..., None]
) -> None:
    """Nothing waits, and no thread or file is left of what was asked."""
    start_worker(broker.url, app="echo")
    translator = CeleryTranslator.from_config(RegistryFile(Settings().models), broker.url)
    client = create_app(Settings(), translator).test_client()
    document = 'mutation { translate(input: {texts: ["Un."], target: "en"}) { model } }'
    eventually(lambda: client.post("/graphql", json={"query": document}).status_code == 200)
    client.post("/graphql", json={"query": "{ status { broker } }"})
    threads, files = threading.active_count(), psutil.Process().num_fds()

    @fuzz
    @given(bodies("/graphql"))
    def send(body: dict[str, Any]) -> None:
        answer = client.post("/graphql", json=body)
        check(answer.status_code, answer.data)

    send()
    assert translator.replies.pending == {}
    eventually(lambda: threading.active_count() <= threads and psutil.Process().num_fds() <= files)
    translator.close()
