"""The task alone, without a broker and without a model."""

from __future__ import annotations

import json
import logging
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject
from celery.worker import state

from models import errors
from tasks.celery import app
from tasks.contract.errors import Code
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
from tasks.worker.translate import WAY_BACK, translate


class Model:
    """A model that returns a given result and keeps the arguments of the calls."""

    version = "abc"

    def __init__(self) -> None:
        self.outcome: list[Any] | Exception = []
        self.asked: dict[str, Any] = {}

    def translate(self, texts: tuple[str, ...], **asked: Any) -> SimpleNamespace:
        self.asked = {"texts": texts, **asked}
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return SimpleNamespace(results=self.outcome, timings=SimpleNamespace(wait=0.1, prefill=0.2, decode=0.3))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    made = Model()
    monkeypatch.setattr(app, "models", SimpleNamespace(use=lambda name, deadline: nullcontext(made)), raising=False)
    return made


def request(timeout: float = 10, **fields: Any) -> dict[str, Any]:
    made = TranslateRequest(
        texts=("un",),
        source="fr",
        target="en",
        model="fr-en",
        deadline=time.time() + timeout,
        options=RequestOptions(4, 2, 0.5),
    )
    return {**made.encode(), **fields}


def run(payload: Any) -> TranslateReply:
    return TranslateReply.decode(json.loads(json.dumps(translate(payload))))


def translation(text: str | None = None, **fields: Any) -> SimpleNamespace:
    blank = {"score": -0.5, "alternatives": (), "flags": (), "sentences": (), "error": None}
    return SimpleNamespace(**{"text": text, **blank, **fields})


def test_the_request_reaches_the_model_and_its_answer_the_reply(model: Model) -> None:
    sentence = SimpleNamespace(source=(0, 2), target=(0, 3), score=-0.5, flags=("SPLIT",))
    alternatives = (SimpleNamespace(text="a", score=-1.0),)
    model.outcome = [
        translation("one", alternatives=alternatives, flags=("SPLIT",), sentences=(sentence,)),
        translation(error=errors.DeadlineExceeded("too slow")),
    ]
    reply = run(request(texts=["un", "deux"]))
    assert model.asked["texts"] == ("un", "deux")
    assert (model.asked["source"], model.asked["target"], model.asked["priority"]) == ("fr", "en", "interactive")
    assert (model.asked["beam"], model.asked["nbest"], model.asked["length_penalty"]) == (4, 2, 0.5)
    assert reply.results == (
        TextResult(
            "one",
            -0.5,
            (AlternativeResult("a", -1.0),),
            (Flag.SPLIT,),
            (SentenceResult((0, 2), (0, 3), -0.5, (Flag.SPLIT,)),),
        ),
        TextResult(error=Failure(Code.TIMEOUT, "too slow")),
    )
    assert (reply.model, reply.version, reply.error) == ("fr-en", "abc", None)
    assert reply.timings == RequestTimings(0.0, 0.1, 0.2, 0.3, pytest.approx(0.0, abs=0.1))


def test_a_task_that_is_cancelled_before_its_model_has_it_is_unwanted(model: Model) -> None:
    translate.apply((request(),), task_id="cancelled").get()
    assert not model.asked["unwanted"]()
    state.revoked.add("cancelled")
    assert model.asked["unwanted"]()
    state.revoked.discard("cancelled")


@pytest.mark.parametrize("timeout", [0.5, 10, 60])
def test_the_model_has_until_a_little_before_the_deadline(model: Model, timeout: float) -> None:
    before = time.monotonic()
    run(request(timeout))
    after = time.monotonic()
    margin = min(WAY_BACK, timeout / 10)
    assert before + timeout - margin - 0.1 < model.asked["deadline"] < after + timeout - margin + 0.1


def test_what_came_too_late_is_not_translated(model: Model) -> None:
    reply = run(request(timeout=-1))
    assert reply.error is not None
    assert reply.error.code is Code.TIMEOUT
    assert model.asked == {}


@pytest.mark.parametrize("payload", [None, [], "x", {}, {"v": 2}, {**request(), "texts": [None]}])
def test_a_payload_that_does_not_fit_is_bad_input(model: Model, payload: Any) -> None:
    reply = run(payload)
    assert reply.error is not None
    assert reply.error.code is Code.BAD_INPUT


def test_a_version_that_is_not_here_is_unknown(model: Model) -> None:
    reply = run(request(version="old"))
    assert reply.error is not None
    assert reply.error.code is Code.UNKNOWN_MODEL
    assert run(request(version="abc")).error is None


@pytest.mark.parametrize(
    "error",
    [errors.Overloaded("full"), errors.Cancelled("gone"), errors.BadInput("bad"), errors.Unavailable("closed")],
)
def test_an_error_of_the_models_keeps_its_code(model: Model, error: errors.ModelError) -> None:
    model.outcome = error
    assert run(request()).error == Failure(Code(error.code), str(error))


@pytest.mark.parametrize("error", [RuntimeError("a secret"), errors.ModelError("a secret"), KeyError("a secret")])
def test_a_bug_reveals_nothing_and_is_logged_with_its_place(
    model: Model, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    model.outcome = error
    with caplog.at_level(logging.ERROR):
        reply = run(request(texts=["another secret"]))
    assert reply.error is not None
    assert reply.error.code is Code.INTERNAL
    assert type(error).__name__ in caplog.text
    assert "in translate" in caplog.text
    assert "secret" not in caplog.text + reply.error.message


def test_a_worker_that_stops_hands_back_what_it_cannot_finish(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "should_stop", 0)
    model.outcome = errors.Unavailable("closing")
    with pytest.raises(Reject) as caught:
        translate(request())
    assert caught.value.requeue


def test_nothing_of_a_result_is_shown() -> None:
    assert translate.resultrepr_maxsize == 0
