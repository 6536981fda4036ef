"""The remote-control commands of a running worker."""

from __future__ import annotations

from pathlib import Path

import pytest

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
