"""The translator behind the queue, with a real broker that is away, dies and hangs."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.contract.errors import Code
from tests.app.broker.answering import Worker, ask, failure, length, on_disk

pytestmark = pytest.mark.broker


def test_without_a_worker_the_deadline_ends_the_wait(broker, connect, eventually) -> None:
    translator = connect(broker.url, "idle")
    assert failure(lambda: ask(translator, "un", model="idle", timeout=1)).code is Code.TIMEOUT
    error = failure(translator.check)
    assert error.code is Code.UNAVAILABLE
    assert "worker" in error.message
    eventually(lambda: length(broker.url, "idle") == 0)  # the broker drops what nobody waits for
    with Worker(broker.url, "idle"):
        assert ask(translator, "deux", model="idle").results[0].text == "deux"
        translator.check()


def test_a_fork_has_a_reply_consumer_of_its_own(broker, connect) -> None:
    translator = connect(broker.url, "fork")
    with Worker(broker.url, "fork"):
        ask(translator, "un", model="fork")
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if ask(translator, "deux", model="fork").results[0].text == "deux" else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ask(translator, "trois", model="fork").results[0].text == "trois"


def test_a_killed_broker_comes_back_and_the_request_in_flight_is_answered(fragile, connect, eventually) -> None:
    translator = connect(fragile.url, "phoenix")
    with ThreadPoolExecutor(4) as threads:
        waiting = []
        for number in range(4):
            waiting.append(threads.submit(ask, translator, str(number), model="phoenix", timeout=60))
            eventually(lambda sent=number + 1: length(fragile.url, "phoenix") == sent)
        eventually(lambda: on_disk(fragile, "phoenix"))
        fragile.kill()
        eventually(lambda: not translator.replies.ready.is_set())
        assert not any(each.done() for each in waiting)
        fragile.start()
        with Worker(fragile.url, "phoenix"):
            assert [each.result(60).results[0].text for each in waiting] == ["0", "1", "2", "3"]


def test_while_the_broker_is_down_requests_fail_in_time_and_work_again_after(fragile, connect, eventually) -> None:
    translator = connect(fragile.url, "down")
    with Worker(fragile.url, "down"):
        ask(translator, "un", model="down")
    eventually(lambda: on_disk(fragile, "down"))
    fragile.kill()
    error = failure(lambda: ask(translator, "deux", model="down", timeout=2))
    assert error.code is Code.UNAVAILABLE
    assert "broker" in error.message
    assert failure(translator.check).code is Code.UNAVAILABLE
    with ThreadPoolExecutor(1) as threads:  # one that has time enough is sent when the broker is back
        patient = threads.submit(ask, translator, "trois", model="down", timeout=60)
        fragile.start()
        with Worker(fragile.url, "down"):
            assert patient.result().results[0].text == "trois"


@pytest.mark.long
def test_a_broker_that_hangs_blocks_nobody_beyond_the_deadline(fragile, connect) -> None:
    translator = connect(fragile.url, "hang")
    with Worker(fragile.url, "hang"):
        ask(translator, "un", model="hang")
    os.kill(fragile.process.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(16) as threads:
            asked = [threads.submit(ask, translator, "deux", model="hang", timeout=2) for _ in range(16)]
            codes = {failure(lambda each=each: each.result(30)).code for each in asked}
        assert codes <= {Code.UNAVAILABLE, Code.TIMEOUT, Code.OVERLOADED}  # where the first reply was slow to come
        assert failure(translator.check).code is Code.UNAVAILABLE
        leaving = connect(fragile.url, "hang")
        assert failure(lambda: ask(leaving, "deux", model="hang", timeout=0.5)).code is Code.UNAVAILABLE
        translator.close()
        leaving.close()
    finally:
        os.kill(fragile.process.pid, signal.SIGCONT)
    with Worker(fragile.url, "hang"):
        assert ask(connect(fragile.url, "hang"), "trois", model="hang").results[0].text == "trois"


def test_a_broker_that_was_never_there_is_unavailable(free_port, connect) -> None:
    translator = connect(f"amqp://guest:guest@127.0.0.1:{free_port()}//", "nobody")
    assert failure(lambda: ask(translator, "un", model="nobody", timeout=1)).code is Code.UNAVAILABLE
    assert failure(translator.check).code is Code.UNAVAILABLE
