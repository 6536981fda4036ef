"""The task alone, with a message that keeps its replies."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject
from celery.worker import state

from models import errors
from tasks.celery import app
from tasks.contract.bundle import Bundled
from tasks.contract.errors import Code
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.worker.request import current
from tasks.worker.translate import answered, translate
from tests.tasks.worker.test_answers import Models


class Held:
    """A message in a worker."""

    id = "m"
    hostname = "w"

    def __init__(self, payload: Any) -> None:
        self.payload = payload
        self.bundled = isinstance(payload, list)
        self.message = SimpleNamespace(headers={})
        self.replies: dict[str, TranslateReply] = {}

    def is_unwanted(self, task_id: str) -> bool:
        return False

    def reply(self, task_id: str, reply: TranslateReply) -> None:
        self.replies[task_id] = reply

    def run(self) -> dict[str, Code | None]:
        """Runs the task; the error of each reply, by the request's id."""
        found: Any = self
        token = current.set(found)
        try:
            translate(self.payload)
        finally:
            current.reset(token)
        return {task_id: reply.error and reply.error.code for task_id, reply in self.replies.items()}


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    made = Models()
    monkeypatch.setattr(app, "models", made, raising=False)
    return made


def request(**fields: Any) -> dict[str, Any]:
    return {**TranslateRequest(("un",), "en", "fr-en", time.time() + 10).encode(), **fields}


@pytest.mark.parametrize("payload", [None, [], "x", {}, {"v": 2}, {**request(), "texts": [None]}, ["x"], [{"v": 1}]])
def test_a_payload_that_does_not_fit_is_bad_input(payload: Any) -> None:
    assert Held(payload).run() == {"m": Code.BAD_INPUT}


def test_every_request_of_a_bundle_is_answered_and_counted() -> None:
    before = answered()
    bundle = [Bundled(name, TranslateRequest.decode(request())).encode() for name in ("1", "2")]
    assert Held([*bundle, {"id": "bad", "v": 1}, {"v": 1}]).run() == {"1": None, "2": None, "bad": Code.BAD_INPUT}
    assert answered() == before + 3


def test_a_worker_that_stops_hands_back_what_it_cannot_finish(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "should_stop", 0)
    models.outcome = errors.Unavailable("closing")
    held = Held([{**request(), "id": "1"}, {"id": "bad"}])
    with pytest.raises(Reject) as caught:
        held.run()
    assert caught.value.requeue
    assert list(held.replies) == ["bad"]
