from __future__ import annotations

from contextvars import Context
from threading import Barrier
from types import SimpleNamespace
from typing import Any

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


def test_bulk_tasks_have_an_eighth_of_the_threads_and_leave_the_others_alone() -> None:
    def begin(queue: str, meeting: Barrier) -> Any:
        arguments = ("tolk.translate", "id", {"delivery_info": {"routing_key": queue}}, meeting)
        return pool.apply_async(lambda *args: args[3].wait(20), args=arguments, callback=lambda _: None)

    pool = TaskPool(16, app=SimpleNamespace())
    pool.start()
    two, three, all_others = Barrier(2 + 1), Barrier(3), Barrier(16)
    bulk = [begin("tolk.translate.fr-en.bulk", two) for _ in range(2)]
    waiting = begin("tolk.translate.on-demand.3.bulk", three)
    others = [begin("tolk.translate.bulk.interactive", all_others) for _ in range(16)]
    for each in others:  # they meet only if each has a thread, whatever bulk tasks do
        each.get()
    assert not waiting.f.running()
    two.wait(20)
    for each in bulk:
        each.get()
    three.abort()
    pool.stop()
