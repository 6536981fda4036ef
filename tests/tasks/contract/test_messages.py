from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.errors import Code, TolkError
from tasks.contract.names import queue_name
from tasks.contract.reply import (
    AlternativeResult,
    Failure,
    Flag,
    RequestTimings,
    SentenceResult,
    TextResult,
    TranslateReply,
)
from tasks.contract.request import RequestOptions, TranslateRequest
from tasks.contract.worker import LoadedModel, WorkerStatus

texts = st.text(st.characters(exclude_categories=()))  # lone surrogates too
numbers = st.floats(allow_nan=False, allow_infinity=False)
names = st.none() | texts
failures = st.builds(Failure, st.sampled_from(Code), texts, st.none() | numbers)
flags = st.lists(st.sampled_from(Flag)).map(tuple)
spans = st.tuples(st.integers(0, 9), st.integers(9, 99))
results = st.builds(
    TextResult,
    text=names,
    score=st.none() | numbers,
    alternatives=st.lists(st.builds(AlternativeResult, texts, numbers)).map(tuple),
    flags=flags,
    sentences=st.lists(st.builds(SentenceResult, spans, spans, numbers, flags)).map(tuple),
    error=st.none() | failures,
)
options = st.builds(RequestOptions, beam=st.integers(2, 64), nbest=st.integers(1, 2), length_penalty=numbers)
requests = st.builds(
    TranslateRequest,
    texts=st.lists(texts).map(tuple),
    target=texts,
    model=texts,
    deadline=numbers,
    source=names,
    version=names,
    options=options,
    priority=st.sampled_from(["interactive", "bulk"]),
    principal=names,
)
replies = st.builds(
    TranslateReply,
    model=texts,
    version=names,
    via=st.lists(texts).map(tuple),
    worker=texts,
    results=st.lists(results).map(tuple),
    timings=st.builds(RequestTimings, numbers, numbers, numbers, numbers, numbers),
    error=st.none() | failures,
)
statuses = st.builds(
    WorkerStatus,
    models=st.lists(st.builds(LoadedModel, texts, texts, texts)).map(tuple),
    active=st.integers(),
    processed=st.integers(),
    uptime=numbers,
    memory=st.none() | st.integers(),
    gpu_memory=st.none() | st.integers(),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)

REQUEST = TranslateRequest(texts=("un",), target="en", model="fr-en", deadline=1.0)
REPLY = TranslateReply(model="fr-en", results=(TextResult("one", -0.5, (AlternativeResult("two", -1.0),)),))


def over_the_wire(payload: dict[str, Any]) -> Any:
    return json.loads(json.dumps(payload))


def refusal(call: Any) -> str:
    with pytest.raises(TolkError) as caught:
        call()
    assert caught.value.code is Code.BAD_INPUT
    return caught.value.message


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
        return  # it says what is wrong; any other exception fails the test
    json.dumps(decoded.encode(), allow_nan=False)


def places(payload: Any) -> list[tuple[Any, Any]]:
    """Everything in a message that can be replaced: (where, its key or index)."""
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


def encode(message: Any) -> Any:
    return message.encode() if hasattr(message, "encode") else asdict(message)


@pytest.mark.parametrize("name", ["v", "texts", "target", "model", "options", "priority", "deadline"])
def test_a_missing_field_is_named(name: str) -> None:
    payload = REQUEST.encode()
    del payload[name]
    assert refusal(lambda: TranslateRequest.decode(payload)).startswith("request" if name == "v" else name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("v", 2),
        ("texts", "un"),
        ("texts", [1]),
        ("texts", {"0": "un"}),
        ("target", None),
        ("deadline", True),
        ("deadline", "1"),
        ("deadline", float("nan")),
        ("deadline", float("inf")),
        ("deadline", 10**400),
        ("priority", "urgent"),
        ("priority", ["bulk"]),
        ("options", None),
        ("options", {"beam": 0, "nbest": 0, "length_penalty": 1}),
        ("options", {"beam": 65, "nbest": 1, "length_penalty": 1}),
        ("options", {"beam": 1, "nbest": 2, "length_penalty": 1}),
        ("options", {"beam": 1.0, "nbest": 1, "length_penalty": 1}),
        ("options", {"beam": 1, "nbest": 1, "length_penalty": float("inf")}),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: Any) -> None:
    refusal(lambda: TranslateRequest.decode({**REQUEST.encode(), name: value}))


def test_a_whole_number_is_a_number() -> None:
    decoded = TranslateRequest.decode({**REQUEST.encode(), "deadline": 5})
    assert (decoded.deadline, type(decoded.deadline)) == (5.0, float)


def test_fields_of_a_newer_release_are_ignored() -> None:
    request = REQUEST.encode()
    request["options"]["temperature"] = 0.5
    assert TranslateRequest.decode({**request, "glossary": "g"}) == REQUEST
    reply = over_the_wire(REPLY.encode())
    reply["results"][0]["sources"] = []
    assert TranslateReply.decode({**reply, "cached": True}) == REPLY


def test_flags_and_codes_of_a_newer_release_do_no_harm() -> None:
    reply = over_the_wire(REPLY.encode())
    reply["results"][0]["flags"] = ["SPLIT", "SHINY"]
    reply["error"] = {"code": "NEW", "message": "m", "retry_after": None}
    assert TranslateReply.decode(reply) == replace(
        REPLY, results=(replace(REPLY.results[0], flags=(Flag.SPLIT,)),), error=Failure(Code.INTERNAL, "m")
    )


def test_a_reply_of_an_earlier_release_tells_no_load() -> None:
    reply = over_the_wire(replace(REPLY, timings=RequestTimings(1.0, load=2.0)).encode())
    del reply["timings"]["load"]
    assert TranslateReply.decode(reply) == replace(REPLY, timings=RequestTimings(1.0))


def test_a_reply_of_an_earlier_release_has_no_sentences() -> None:
    reply = over_the_wire(REPLY.encode())
    del reply["results"][0]["sentences"]
    assert TranslateReply.decode(reply) == REPLY


def test_a_worker_of_an_earlier_release_does_not_say_what_memory_it_has() -> None:
    status = WorkerStatus((), active=1, processed=2, uptime=3.0, memory=4, gpu_memory=5)
    payload = over_the_wire(status.encode())
    del payload["memory"], payload["gpu_memory"]
    assert WorkerStatus.decode(payload) == replace(status, memory=None, gpu_memory=None)


@pytest.mark.parametrize("span", [None, [], [1], [1, 2, 3], [2, 1], [-1, 1], ["1", "2"], [0.0, 1.0]])
def test_a_span_is_a_start_and_an_end(span: object) -> None:
    reply = over_the_wire(REPLY.encode())
    reply["results"][0]["sentences"] = [{"source": [0, 1], "target": span, "score": 0.0, "flags": []}]
    refusal(lambda: TranslateReply.decode(reply))


def test_each_model_has_two_queues() -> None:
    assert queue_name("fr-en", "interactive") == "tolk.translate.fr-en.interactive"
    assert queue_name("fr-en", "bulk") == "tolk.translate.fr-en.bulk"
