"""How messages are published again."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.contract.bundle import RETURNED, TAKES_MANY, Bundled
from tasks.contract.delivery import again_alone, returned
from tasks.contract.names import PUBLISHED, TASK
from tasks.contract.request import TranslateRequest

NOW = 1000.0
QUEUE = "tolk.translate.fr-en.interactive"
BUNDLE = [
    Bundled("1", TranslateRequest(("un",), "en", "fr-en", NOW + 5), {"traceparent": "own"}).encode(),
    {"id": "bad", "deadline": "soon"},
    {"v": 1},
]


def message(payload: Any, *, queue: str = QUEUE, redelivered: bool = False, **headers: Any) -> Any:
    body = [[payload], {}, {}]
    own = {"task": TASK, "id": "m", "traceparent": "the bundle's", PUBLISHED: NOW - 2, TAKES_MANY: 1}
    return SimpleNamespace(
        body=json.dumps(body),
        payload=body,
        content_type="application/json",
        content_encoding="utf-8",
        headers=own | headers,
        properties={"correlation_id": "m", "reply_to": "r", "expiration": "9000"},
        delivery_info={"exchange": "tolk.translate", "routing_key": queue, "redelivered": redelivered},
    )


def test_each_request_of_a_bundle_becomes_a_message_of_its_own() -> None:
    alone = again_alone(message(BUNDLE), NOW)
    assert list(alone) == ["1", "bad"]
    one, bad = alone.values()
    [[payload], *rest] = json.loads(one["body"])
    assert TranslateRequest.decode(payload).texts == ("un",)
    assert payload.keys().isdisjoint({"id", "trace"})
    assert rest == [{}, {}]
    assert (one["correlation_id"], one["reply_to"], one["expiration"]) == ("1", "r", 5.0)
    assert (one["headers"]["id"], one["headers"]["traceparent"], one["headers"][TAKES_MANY]) == ("1", "own", 1)
    assert (bad["correlation_id"], bad["expiration"]) == ("bad", 7.0)


@pytest.mark.parametrize("again", [{"redelivered": True}, {"x-delivery-count": 1}])
def test_a_bundle_that_comes_back_is_taken_apart(again: dict[str, Any]) -> None:
    parts = returned(message(BUNDLE, **again), NOW)
    assert [each["headers"]["id"] for each in parts] == ["1", "bad"]
    assert all(each["headers"][RETURNED] == 1 for each in parts)
    assert {(each["exchange"], each["routing_key"]) for each in parts} == {("tolk.translate", QUEUE)}


def test_a_bundle_among_the_suspects_is_taken_apart_there() -> None:
    parts = returned(message(BUNDLE, queue="tolk.suspects.fr-en", **{"x-death": [{}]}), NOW)
    assert [each["routing_key"] for each in parts] == ["tolk.suspects.fr-en"] * 2


@pytest.mark.parametrize(
    ("queue", "suspects"),
    [(QUEUE, "tolk.suspects.fr-en"), ("tolk.translate.on-demand.7.bulk", "tolk.suspects.on-demand")],
)
def test_a_request_of_such_a_bundle_goes_to_the_suspects_and_does_not_expire_there(queue: str, suspects: str) -> None:
    [again] = returned(message({}, queue=queue, redelivered=True, **{RETURNED: 1}), NOW)
    assert (again["exchange"], again["routing_key"], again["expiration"]) == ("", suspects, None)
    assert again["headers"][RETURNED] == 1


@pytest.mark.parametrize(
    "first",
    [
        message(BUNDLE),
        message({}, **{RETURNED: 1}),
        message({}, redelivered=True),
        message({}, queue="tolk.suspects.fr-en", **{RETURNED: 1, "x-death": [{}]}),
    ],
)
def test_other_messages_stay(first: Any) -> None:
    assert returned(first, NOW) == []
