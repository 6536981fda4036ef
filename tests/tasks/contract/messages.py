"""Messages of every kind, and helpers that encode and decode them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import strategies as st

from tasks.contract.errors import Code, TolkError
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
from tasks.contract.worker import FailedModel, LoadedModel, WorkerStatus

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
    caller=names,
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
    tokens=st.none() | numbers,
)
statuses = st.builds(
    WorkerStatus,
    models=st.lists(st.builds(LoadedModel, texts, texts, texts)).map(tuple),
    active=st.integers(),
    processed=st.integers(),
    uptime=numbers,
    memory=st.none() | st.integers(),
    gpu_memory=st.none() | st.integers(),
    failed=st.lists(st.builds(FailedModel, texts, texts)).map(tuple),
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


def encode(message: Any) -> Any:
    return message.encode() if hasattr(message, "encode") else asdict(message)
