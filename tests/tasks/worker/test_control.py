"""The remote-control commands of a running worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tasks.contract.errors import Code, TolkError


@pytest.mark.broker
def test_cancelling_ends_the_task_too(broker, start_worker, translator, ask, threads, eventually, models: Path) -> None:
    worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
    asked = threads.submit(ask, "#sleep 60", request_id="cancelled")
    eventually(lambda: worker.logged("cancelled", "received"))
    assert translator.cancel("cancelled", None)
    with pytest.raises(TolkError) as caught:
        asked.result()
    assert caught.value.code is Code.CANCELLED
    eventually(lambda: worker.logged("cancelled", "CANCELLED"))
    worker.stop()


@pytest.mark.broker
@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("rate_limit", {"task_name": "tolk.translate", "rate_limit": "1/h"}),
        ("time_limit", {"task_name": "tolk.translate", "soft": 1, "hard": 1}),
        ("cancel_consumer", {"queue": "tolk.translate.a.interactive"}),
        ("add_consumer", {"queue": "tolk.other"}),
        ("pool_shrink", {"n": 64}),
        ("pool_restart", {}),
        ("autoscale", {"max": 0, "min": 0}),
        ("disable_events", {}),
        ("shutdown", {}),
        ("objgraph", {}),
    ],
)
def test_commands_that_tolk_does_not_use_are_refused(
    broker, start_worker, ask, models: Path, command: str, arguments: dict[str, Any]
) -> None:
    worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
    control = Celery(broker=broker.url).control
    [answer] = control.broadcast(command, arguments=arguments, reply=True, limit=1, timeout=10)
    assert "Tolk does not use this command" in str(answer)
    assert ask("un").results[0].text == "un"
    assert control.ping(limit=1, timeout=10)
    worker.stop()
