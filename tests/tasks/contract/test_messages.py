"""Every kind of message survives encoding and decoding, and any other payload is refused."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.errors import TolkError
from tasks.contract.reply import (
    Failure,
    TextResult,
    TranslateReply,
)
from tasks.contract.request import RequestOptions, TranslateRequest
from tasks.contract.worker import WorkerStatus
from tests.tasks.contract.messages import (
    REPLY,
    REQUEST,
    anything,
    encode,
    failures,
    options,
    over_the_wire,
    refusal,
    replies,
    requests,
    results,
    statuses,
)


@given(requests)
def test_a_request_survives_the_wire(request: TranslateRequest) -> None:
    assert TranslateRequest.decode(over_the_wire(request.encode())) == request


@given(replies)
def test_a_reply_survives_the_wire(reply: TranslateReply) -> None:
    assert TranslateReply.decode(over_the_wire(reply.encode())) == reply


@given(anything)
def test_anything_else_is_bad_input(payload: Any) -> None:
    refusal(lambda: TranslateRequest.decode(payload))
    refusal(lambda: TranslateReply.decode(payload))


@given(st.data())
def test_one_field_of_any_other_value_is_decoded_or_bad_input(data: st.DataObject) -> None:
    message, decode = data.draw(st.sampled_from([(REQUEST, TranslateRequest.decode), (REPLY, TranslateReply.decode)]))
    payload = over_the_wire(message.encode())
    payload[data.draw(st.sampled_from(sorted(payload)))] = data.draw(anything)
    try:
        decoded = decode(payload)
    except TolkError:
        return  # a BAD_INPUT that says what is wrong; any other exception fails the test
    json.dumps(decoded.encode(), allow_nan=False)


def places(payload: Any) -> list[tuple[Any, Any]]:
    """All values of a message that can be replaced, as (container, key or index)."""
    keys = payload.keys() if isinstance(payload, dict) else range(len(payload)) if isinstance(payload, list) else ()
    return [place for key in keys for place in [(payload, key), *places(payload[key])]]


@given(st.data())
def test_a_message_with_anything_in_any_places_is_decoded_or_bad_input(data: st.DataObject) -> None:
    messages: list[tuple[st.SearchStrategy[Any], Any]] = [
        (requests, TranslateRequest),
        (replies, TranslateReply),
        (options, RequestOptions),
        (failures, Failure),
        (results, TextResult),
        (statuses, WorkerStatus),
    ]
    strategy, kind = data.draw(st.sampled_from(messages))
    payload = over_the_wire(encode(data.draw(strategy)))
    for _ in range(data.draw(st.integers(1, 3))):
        where, key = data.draw(st.sampled_from(places(payload)))
        if data.draw(st.booleans()):
            where[key] = data.draw(anything)
        elif isinstance(where, dict):
            del where[key]
    try:
        decoded = kind.decode(payload)
    except TolkError:
        return
    assert decoded is None or kind.decode(over_the_wire(encode(decoded))) == decoded


def test_fields_of_a_newer_release_are_ignored() -> None:
    request = REQUEST.encode()
    request["options"]["temperature"] = 0.5
    assert TranslateRequest.decode({**request, "glossary": "g"}) == REQUEST
    reply = over_the_wire(REPLY.encode())
    reply["results"][0]["sources"] = []
    assert TranslateReply.decode({**reply, "cached": True}) == REPLY
