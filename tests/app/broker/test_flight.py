"""What becomes of a request that workers are asked for, whatever they answer."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from kombu import Connection

from app.broker.admission import Admission
from app.settings import IN_FLIGHT
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import RequestTimings, TextResult, TranslateReply
from tasks.queues import topology
from telemetry import tracing
from tests.app.broker.answering import PICKLED, Worker, ask, failure, length, succeed

pytestmark = pytest.mark.broker


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no JSON", Code.INTERNAL),
        (b"\xff", Code.INTERNAL),
        (PICKLED, Code.INTERNAL),
        ([], Code.INTERNAL),
        (None, Code.INTERNAL),
        ({}, Code.INTERNAL),
        ({"status": "SUCCESS"}, Code.INTERNAL),
        ({"status": "SUCCESS", "result": {"v": 2}}, Code.INTERNAL),
        ({"status": "SUCCESS", "result": TranslateReply(model="odd").encode()}, Code.INTERNAL),
        ({"status": "FAILURE", "result": {"exc_type": "NotRegistered", "exc_message": ["x"]}}, Code.INTERNAL),
        ({"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["revoked"]}}, Code.CANCELLED),
    ],
)
def test_whatever_a_worker_answers_is_one_error(broker, connect, body: Any, code: Code) -> None:
    translator = connect(broker.url, "odd")
    with Worker(broker.url, "odd", lambda _: body):
        error = failure(lambda: ask(translator, "un", model="odd"))
    assert error.code is code


def test_an_error_of_the_worker_arrives_with_its_message(broker, connect) -> None:
    reply = TranslateReply(model="odd").encode()
    reply["error"] = {"code": "OVERLOADED", "message": "full", "retry_after": 2.5}
    translator = connect(broker.url, "odd")
    with Worker(broker.url, "odd", lambda _: {"status": "SUCCESS", "result": reply}):
        error = failure(lambda: ask(translator, "un", model="odd"))
    assert (error.code, error.message, error.retry_after) == (Code.OVERLOADED, "full", 2.5)


@pytest.mark.parametrize("error", [None, {"code": "TIMEOUT", "message": "late", "retry_after": None}])
def test_loading_is_work_and_not_waiting(broker, connect, monkeypatch: pytest.MonkeyPatch, error: object) -> None:
    worked: list[tuple[float | None, float | None]] = []
    monkeypatch.setattr(Admission, "leave", lambda _self, _place, work, tokens: worked.append((work, tokens)))
    timings = RequestTimings(queue=1.0, wait=2.0, prefill=4.0, decode=8.0, load=16.0)
    reply = replace(TranslateReply("odd", results=(TextResult("one"),)), timings=timings, tokens=5.0).encode()
    translator = connect(broker.url, "odd")
    answer = {"status": "SUCCESS", "result": {**reply, "error": error}}
    with Worker(broker.url, "odd", lambda _: answer), suppress(TolkError):
        ask(translator, "un", model="odd")
    assert worked == [(28.0, 5.0)]


def test_stages_that_a_failed_task_did_not_come_to_are_none(broker, connect) -> None:
    failed = {"code": "TIMEOUT", "message": "late", "retry_after": None}
    reply = {**replace(TranslateReply("odd"), timings=RequestTimings(queue=1.0)).encode(), "error": failed}
    translator = connect(broker.url, "odd")
    root = tracing.begin("root")
    with Worker(broker.url, "odd", lambda _: {"status": "SUCCESS", "result": reply}), suppress(TolkError):
        ask(translator, "un", model="odd")
    assert [each.name for each in root.children[0].children] == ["admission", "publish", "queue", "reply"]


def test_a_long_queue_is_overload_before_it_is_full(broker, connect, eventually) -> None:
    translator = connect(broker.url, "long")

    def answer(payload: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.2)
        return succeed(payload)

    with Worker(broker.url, "long", answer):
        for _ in range(6):
            ask(translator, "un", model="long")
    queue = topology.translation_queue("long", "interactive")
    others = topology.MAX_LENGTH["interactive"] // 4
    with Connection(broker.url) as connection:
        for _ in range(others):
            connection.Producer().publish({}, routing_key=queue.name)
        eventually(lambda: length(broker.url, "long") == others)  # or the queue would be measured while it fills
        with ThreadPoolExecutor(1) as threads:
            patient = threads.submit(ask, translator, "deux", model="long", timeout=60)

            eventually(lambda: length(broker.url, "long") == others + 1)
            try:
                error = failure(lambda: ask(translator, "trois", model="long", timeout=60))
                assert not patient.done()
            finally:
                translator.close()
        assert error.code is Code.OVERLOADED
        assert error.retry_after is not None
        assert error.retry_after > 2
        queue(connection.default_channel).purge()


def test_whoever_takes_all_places_of_a_process_leaves_some_to_others(broker, connect, eventually) -> None:
    translator = connect(broker.url, "many")
    released = threading.Event()

    def answer(payload: dict[str, Any]) -> dict[str, Any]:
        released.wait(60)
        return succeed(payload)

    def fill(caller: str) -> int:
        """Lets in as many requests of a caller as may be in flight. Returns their number."""
        for number in range(IN_FLIGHT):
            each = threads.submit(ask, translator, "un", model="many", timeout=60, caller=caller)
            eventually(lambda number=number, each=each: len(waiting) + number < len(flying()) or each.done())
            if each.done():
                refusals.append(each.exception())
                break
        waiting.extend([caller] * number)
        return number

    def flying() -> list[object]:
        return list(translator.replies.pending.values())

    waiting: list[str] = []
    refusals: list[Any] = []
    with Worker(broker.url, "many", answer), ThreadPoolExecutor(2 * IN_FLIGHT) as threads:
        first = threads.submit(ask, translator, "un", model="many", timeout=60, caller="first")
        eventually(lambda: len(flying()) == 1 and translator.replies.ready.is_set())
        waiting.append("first")
        try:
            places = [fill(caller) for caller in ("flood", "another", "third")]
            small = threads.submit(ask, translator, "deux", model="many", timeout=60, caller="small")
            eventually(lambda: len(flying()) == len(waiting) + 1)
        finally:
            released.set()
        assert places == sorted(places, reverse=True)
        assert places[0] == pytest.approx(0.75 * IN_FLIGHT, abs=2)
        assert sum(places) < IN_FLIGHT - 1
        assert {each.code for each in refusals} == {Code.OVERLOADED}
        assert [each.result(60).results[0].text for each in (first, small)] == ["un", "deux"]
        eventually(lambda: not flying())
        assert ask(translator, "trois", model="many").results[0].text == "trois"
