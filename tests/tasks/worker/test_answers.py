"""The replies to the requests of a message, without a broker and without a model."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from models import errors
from models.engine.submission import SentenceTimings
from models.translation.results import Alternative, Sentence, Translated, Translation
from tasks.contract.bundle import Bundled, Unreadable
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
from tasks.contract.request import TranslateRequest
from tasks.serving import Asked
from tasks.worker.answers import WAY_BACK, answers

BLANK = TranslateReply(model="", worker="w", timings=RequestTimings(queue=0.5))


class Models:
    """Models in memory, all alike, with a given outcome for every request; keeps what they were asked."""

    version = "abc"

    def __init__(self) -> None:
        self.outcome: Translated | Exception = translated(Translation("one"))
        self.refusal: Exception | None = None
        self.asked: list[tuple[str, dict[str, Asked]]] = []

    @contextmanager
    def use(self, name: str, deadline: float) -> Iterator[Models]:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append((name, {}))
        yield self

    def translate(self, asked: Mapping[str, Asked]) -> Iterator[tuple[str, Any]]:
        self.asked[-1][1].update(asked)
        for task_id in reversed(list(asked)):
            yield task_id, self.outcome


@pytest.fixture
def models() -> Models:
    return Models()


def translated(*results: Translation) -> Translated:
    return Translated(results, SentenceTimings(0.1, 0.2, 0.3))


def bundled(task_id: str = "t", timeout: float = 10, **fields: Any) -> Bundled:
    asked: dict[str, Any] = {"texts": ("un",), "target": "en", "model": "fr-en", "deadline": time.time() + timeout}
    return Bundled(task_id, TranslateRequest(**asked | fields))


def run(models: Models, *requests: Bundled | Unreadable) -> dict[str, TranslateReply]:
    found = answers(requests, models, BLANK, lambda task_id: task_id == "unwanted")
    return {each.task_id: TranslateReply.decode(json.loads(json.dumps(reply.encode()))) for each, reply in found}


def failure(models: Models, request: Bundled) -> Failure:
    [reply] = run(models, request).values()
    assert reply.error is not None
    return reply.error


def test_the_outcome_of_a_model_becomes_the_reply(models: Models) -> None:
    sentence = Sentence(source=(0, 2), target=(0, 3), score=-0.5, flags=("SPLIT",))
    models.outcome = translated(
        Translation("one", -0.5, (Alternative("a", -1.0),), ("SPLIT",), (sentence,)),
        Translation(error=errors.DeadlineExceeded("too slow")),
    )
    reply = run(models, bundled())["t"]
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
    assert (reply.model, reply.version, reply.worker, reply.error) == ("fr-en", "abc", "w", None)
    assert reply.timings == RequestTimings(0.5, 0.1, 0.2, 0.3, pytest.approx(0.0, abs=0.1))


def test_requests_for_the_same_model_go_to_it_together_and_each_is_answered(models: Models) -> None:
    bad = Unreadable("bad", TolkError(Code.BAD_INPUT, "no texts"))
    requests = [bundled("1"), bundled("2", model="other"), bad, bundled("3"), bundled("late", timeout=-1)]
    replies = run(models, *requests)
    assert [(name, list(asked)) for name, asked in models.asked] == [("fr-en", ["1", "3"]), ("other", ["2"])]
    assert {task_id: reply.error and reply.error.code for task_id, reply in replies.items()} == {
        "bad": Code.BAD_INPUT,
        "late": Code.TIMEOUT,
        **dict.fromkeys("132"),
    }
    assert [replies[each].model for each in "123"] == ["fr-en", "other", "fr-en"]


def test_each_request_can_be_cancelled(models: Models) -> None:
    run(models, bundled("wanted"), bundled("unwanted"))
    [(_, asked)] = models.asked
    assert not asked["wanted"].unwanted()
    assert asked["unwanted"].unwanted()


@pytest.mark.parametrize("timeout", [0.5, 10, 60])
def test_the_model_has_until_a_little_before_the_deadline(models: Models, timeout: float) -> None:
    before = time.monotonic()
    run(models, bundled(timeout=timeout))
    after = time.monotonic()
    margin = min(WAY_BACK, timeout / 10)
    [(_, asked)] = models.asked
    assert before + timeout - margin - 0.1 < asked["t"].deadline < after + timeout - margin + 0.1


def test_what_came_too_late_is_not_translated(models: Models) -> None:
    assert failure(models, bundled(timeout=-1)).code is Code.TIMEOUT
    assert models.asked == []


def test_a_version_that_is_not_here_is_unknown(models: Models) -> None:
    replies = run(models, bundled("old", version="old"), bundled("new", version="abc"))
    assert (replies["old"].error or Failure(Code.INTERNAL, "")).code is Code.UNKNOWN_MODEL
    assert replies["new"].error is None


@pytest.mark.parametrize(
    "error",
    [errors.Overloaded("full"), errors.Cancelled("gone"), errors.BadInput("bad"), errors.Unavailable("closed")],
)
def test_an_error_of_the_models_keeps_its_code(models: Models, error: errors.ModelError) -> None:
    models.outcome = error
    assert failure(models, bundled()) == Failure(Code(error.code), str(error))


def test_a_model_that_cannot_be_used_fails_all_its_requests(models: Models) -> None:
    models.refusal = TolkError(Code.OVERLOADED, "full", 2.0)
    replies = run(models, bundled("1"), bundled("2"))
    assert [reply.error for reply in replies.values()] == [Failure(Code.OVERLOADED, "full", 2.0)] * 2


@pytest.mark.parametrize("error", [RuntimeError("a secret"), errors.ModelError("a secret"), KeyError("a secret")])
def test_a_bug_reveals_nothing_and_is_logged_with_its_place(
    models: Models, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    models.refusal = error
    with caplog.at_level(logging.ERROR):
        found = failure(models, bundled(texts=("another secret",)))
    assert found.code is Code.INTERNAL
    assert type(error).__name__ in caplog.text
    assert "in use" in caplog.text
    assert "secret" not in caplog.text + found.message
