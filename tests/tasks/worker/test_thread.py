from __future__ import annotations

from contextvars import Context
from types import SimpleNamespace

from tasks.worker.thread import TaskPool
from telemetry import logs


def test_what_a_thread_knows_of_a_task_ends_with_it() -> None:
    known: list[str | None] = []

    def note(*_: object) -> None:
        known.append(logs.request_id.get())

    def accept(*_: object) -> None:
        note()
        logs.request_id.set("task")

    pool = TaskPool(1, app=SimpleNamespace())
    pool.start()
    for _ in range(2):  # whatever this test's own thread knows of another request
        Context().run(lambda: pool.apply_async(note, callback=note, accept_callback=accept).get())
    pool.stop()
    assert known == [None, "task", "task"] * 2
