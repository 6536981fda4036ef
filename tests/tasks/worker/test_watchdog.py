"""A worker whose model hangs ends itself, and its messages are delivered again."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from tasks.contract.errors import Code, TolkError
from tasks.worker.watchdog import EXIT_CODE, Watchdog


@pytest.mark.broker
@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        pytest.param("#hang", EXIT_CODE, "Model a has been in one step for", marks=pytest.mark.long),
        ("#seize", 1, "Timeout (0:00:03)!"),  # it holds the interpreter's lock, so faulthandler ends it
    ],
)
def test_a_worker_whose_model_hangs_ends_and_another_goes_on(
    broker, start_worker, ask, threads, eventually, models: Path, text: str, code: int, sentence: str
) -> None:
    environ = {"TOLK_MODELS": str(models), "TOLK_STEP_TIMEOUT": "1"}
    first = start_worker(broker.url, app="echo", **environ)
    innocent = threads.submit(ask, "#sleep 3", request_id="innocent")
    eventually(lambda: first.logged("innocent", "received"))
    hangs = threads.submit(ask, text, "a secret", timeout=3)
    assert first.process.wait(30) == code
    assert first.says(sentence)
    assert not first.says("secret")
    with pytest.raises(TolkError) as caught:
        hangs.result()
    assert caught.value.code is Code.TIMEOUT
    second = start_worker(broker.url, app="echo", **environ)
    assert innocent.result().results[0].text == "#sleep 3"
    assert second.stop() == 0


def test_a_model_that_loads_for_ever_ends_its_worker(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    seconds = iter([None, ("a", 9.4), ("a", 10.1)])
    memory = SimpleNamespace(stalled=lambda: [("b", 0.9)], loaded=lambda: ())
    models: Any = SimpleNamespace(memory=memory, loading=lambda: next(seconds))

    def end(code: int) -> NoReturn:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit) as caught:
        Watchdog(models, 1.0, period=0.0).watch()
    assert caught.value.code == EXIT_CODE
    assert "Model a has been loading for 10 s" in caplog.text
