"""A request in a worker, without a broker."""

from __future__ import annotations

import contextvars
import json
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import request, state

from tasks.contract.names import TASK
from tasks.worker.request import Request
from tasks.worker.translate import translate
from telemetry import logs


def received(task_id: str) -> Any:
    payload = [[{}], {}, {}]
    message = SimpleNamespace(
        headers={"id": task_id, "task": TASK},
        body=json.dumps(payload),
        payload=payload,
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info={},
        properties={},
    )
    make: Any = Request
    return make(message, app=translate.app, task=translate)


def test_from_its_first_line_on_a_thread_speaks_of_its_request(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "_does_debug", True)
    monkeypatch.setattr(caplog.handler, "formatter", logs.TextFormatter())

    def begin() -> None:
        for name in ("first", "second"):
            task = received(f"{name}.1")
            task.on_accepted("1", time.monotonic())
            state.task_ready(task)

    with caplog.at_level(logging.DEBUG, "celery.worker.request"):
        contextvars.copy_context().run(begin)
    assert [line.rpartition(" ")[2] for line in caplog.text.splitlines()] == ["[first]", "[second]"]
