from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from telemetry.combining import WAITING, Combining


def test_a_thread_leaves_its_line_to_the_one_that_writes() -> None:
    writing, go_on, written = threading.Event(), threading.Event(), list[Sequence[str]]()

    def write(lines: Sequence[str]) -> None:
        written.append(lines)
        writing.set()
        assert go_on.wait(10)

    combining = Combining(write)
    writer = threading.Thread(target=combining.add, args=("first",))
    writer.start()
    assert writing.wait(10)
    combining.add("second")
    combining.add("third")
    assert written == [["first"]]
    go_on.set()
    writer.join()
    assert written == [["first"], ["second", "third"]]


def test_every_line_is_written_once_and_each_threads_in_order() -> None:
    written: list[str] = []
    combining = Combining(written.extend)
    with ThreadPoolExecutor(8) as threads:
        for thread in range(8):
            threads.submit(lambda thread=thread: [combining.add(f"{thread} {i:04}") for i in range(500)])
    for thread in range(8):
        mine = [line for line in written if line.startswith(f"{thread} ")]
        assert mine == [f"{thread} {i:04}" for i in range(500)]


def test_a_file_that_blocks_fills_no_memory() -> None:
    go_on = threading.Event()
    combining = Combining(lambda _: go_on.wait(10))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(combining.add, "first")
        others = threads.submit(lambda: [combining.add("") for _ in range(2 * WAITING)])
        with pytest.raises(TimeoutError):
            others.result(0.3)
        go_on.set()
        first.result(10)
        others.result(10)


def test_who_writes_hears_of_an_error_and_the_next_line_is_tried_again() -> None:
    tries: list[Sequence[str]] = []

    def write(lines: Sequence[str]) -> None:
        tries.append(lines)
        if len(tries) == 1:
            raise OSError("full")

    combining = Combining(write)
    with pytest.raises(OSError, match="full"):
        combining.add("first")
    combining.add("second")
    assert tries == [["first"], ["second"]]
