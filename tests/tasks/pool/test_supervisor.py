"""The supervisor, with plain processes in the place of Celery's workers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.pool.supervisor import Backoff, PoolWorker, Supervisor


def test_the_pause_doubles_up_to_a_bound_and_begins_anew_after_a_healthy_while() -> None:
    backoff = Backoff()
    assert [backoff.after(0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert [backoff.after(worked) for worked in (59, 60, 0, 1000)] == [30, 1, 2, 1]


DEAF = """if True:
    import signal, socket, sys
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda number, _: print(number, file=open(sys.argv[1], "a")))
    line = socket.socket(fileno=int(sys.argv[2].partition("=")[2]))
    line.send(b"ready")
    while True:
        signal.pause()
"""


def test_every_signal_is_harsher_than_the_one_before(
    tmp_path: Path, threads: ThreadPoolExecutor, eventually: Callable[..., None]
) -> None:
    heard = tmp_path / "heard"
    heard.touch()
    deaf = PoolWorker("deaf", [str(heard)])
    supervisor = Supervisor([sys.executable, "-c", DEAF], [deaf])
    running = threads.submit(supervisor.run)
    eventually(lambda: deaf.proven)
    for numbers in ([15], [15, 3]):
        supervisor.events.put(signal.SIGINT)
        eventually(lambda numbers=numbers: [int(line) for line in heard.read_text().split()] == numbers)
    supervisor.events.put(signal.SIGINT)
    assert running.result(30) == 0


def test_what_cannot_be_executed_cannot_start(tmp_path: Path) -> None:
    assert Supervisor([str(tmp_path)], [PoolWorker("nothing", [])]).run() == 1
