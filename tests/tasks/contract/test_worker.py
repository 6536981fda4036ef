from __future__ import annotations

from dataclasses import replace

from tasks.contract.worker import WorkerStatus
from tests.tasks.contract.messages import over_the_wire


def test_a_worker_of_an_earlier_release_does_not_say_what_memory_it_has_and_what_failed() -> None:
    status = WorkerStatus((), active=1, processed=2, uptime=3.0, memory=4, gpu_memory=5)
    payload = over_the_wire(status.encode())
    del payload["memory"], payload["gpu_memory"], payload["failed"]
    assert WorkerStatus.decode(payload) == replace(status, memory=None, gpu_memory=None)
