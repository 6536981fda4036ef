"""Bundles and messages with several replies survive the wire; what cannot be read fails alone."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.bundle import Bundled, Unreadable, decode_bundle, decode_replies, encode_replies, named
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import TASK_ID
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from tests.tasks.contract.messages import REQUEST, anything, over_the_wire, refusal, replies, requests, texts

bundled = st.builds(Bundled, st.from_regex(TASK_ID, fullmatch=True), requests, st.dictionaries(texts, texts))


@given(st.lists(bundled, unique_by=lambda each: each.task_id))
def test_a_bundle_survives_the_wire(bundle: list[Bundled]) -> None:
    assert decode_bundle(json.loads(json.dumps([each.encode() for each in bundle]))) == bundle


@given(st.lists(replies))
def test_several_replies_survive_the_wire(several: list[TranslateReply]) -> None:
    found = decode_replies(over_the_wire(encode_replies([reply.encode() for reply in several])))
    assert [TranslateReply.decode(each) for each in found or []] == several


@given(replies)
def test_a_single_reply_is_not_several(reply: TranslateReply) -> None:
    assert decode_replies({"task_id": "t", "status": "SUCCESS", "result": over_the_wire(reply.encode())}) is None


@given(anything)
def test_anything_else_is_no_bundle_or_a_bundle_of_what_is_named(payload: Any) -> None:
    assert all(isinstance(each, Unreadable) for each in decode_bundle(payload))
    with suppress(TolkError):  # any other exception fails the test
        decode_replies(payload)


@given(st.lists(bundled, min_size=1, unique_by=lambda each: each.task_id), st.data())
def test_a_request_with_anything_in_it_fails_alone(bundle: list[Bundled], data: st.DataObject) -> None:
    payload = json.loads(json.dumps([each.encode() for each in bundle]))
    broken = data.draw(st.sampled_from(payload))
    task_id, field = broken["id"], data.draw(st.sampled_from(sorted(broken.keys() - {"id"})))
    broken[field] = data.draw(anything)
    found = decode_bundle(payload)
    assert [each.task_id for each in found] == [each.task_id for each in bundle]
    assert [each for each in found if each.task_id != task_id] == [each for each in bundle if each.task_id != task_id]


def test_a_request_without_an_id_is_left_out() -> None:
    payload = [Bundled("1", REQUEST).encode(), REQUEST.encode(), {"id": 2}, None, {"id": "bad"}]
    assert list(named(payload)) == ["1", "bad"]
    good, bad = decode_bundle(payload)
    assert good == Bundled("1", REQUEST)
    assert isinstance(bad, Unreadable)
    assert bad.error.code is Code.BAD_INPUT


def test_an_earlier_release_refuses_a_bundle_as_a_whole() -> None:
    payload = [Bundled("1", REQUEST).encode()]
    assert refusal(lambda: TranslateRequest.decode(payload)) == "request: an object was expected, not list."
