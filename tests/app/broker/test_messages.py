"""What the bodies of messages say."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from kombu import Message

from app.broker import messages
from app.broker.pending import BundleRefused
from tasks.contract.bundle import Bundled, decode_bundle, encode_replies
from tasks.contract.errors import Code, TolkError
from tasks.contract.request import TranslateRequest
from tests.app.broker.answering import refuse, succeed


def received(body: object, **properties: str) -> Message:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(encoded, content_type="application/json", content_encoding="utf-8", properties=properties)


def a_request(text: str, **fields: Any) -> TranslateRequest:
    return TranslateRequest((text,), source="fr", target="en", model="m", deadline=time.time() + 60, **fields)


def test_a_bundle_is_one_argument_of_the_task_whose_frame_is_as_long_as_it_says() -> None:
    bundled = [Bundled("1", a_request("été", principal="you"), {"traceparent": "00-1"}), Bundled("2", a_request("un"))]
    encoded = [json.dumps(each.encode()) for each in bundled]
    body = messages.bundle("b", [each.request for each in bundled], encoded, time.time())["body"]
    [[found], positional, named] = json.loads(body)
    assert (positional, named) == ({}, {})
    assert decode_bundle(found) == bundled
    assert len(body) == messages.FRAME + sum(map(len, encoded)) + len(messages.SEPARATOR)


def test_a_message_holds_one_reply_or_several() -> None:
    one, two = ({"task_id": each, "status": "SUCCESS", "result": None} for each in ("1", "2"))
    assert messages.replies(received(one, correlation_id="1")) == [("1", one)]
    assert messages.replies(received(encode_replies([one, two]), correlation_id="1")) == [("1", one), ("2", two)]
    assert messages.replies(received(True, correlation_id="ticket")) == [("ticket", True)]


@pytest.mark.parametrize("body", [b"no JSON", {"replies": None}, {"replies": [1]}])
def test_a_message_that_cannot_be_read_fails_the_request_that_it_names(body: object) -> None:
    [(task_id, error)] = messages.replies(received(body, correlation_id="1"))
    assert task_id == "1"
    assert isinstance(error, TolkError)
    assert error.code is Code.INTERNAL


def test_only_bad_input_refuses_a_bundle() -> None:
    assert isinstance(messages.of_bundle(refuse([])), BundleRefused)
    for body in ({"status": "REVOKED", "result": {}}, succeed({"model": "m", "texts": []}), None, []):
        assert messages.of_bundle(body) is body
