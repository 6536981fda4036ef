"""Work in the background has a lower priority than other threads."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from models.checkpoint.checksum import Checksum
from models.loading.background import NICENESS, in_background
from models.local import LocalTranslator
from models.store.diskcache import Held

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux alone")


def priority(thread: int | None = None) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread or threading.get_native_id())


def test_has_a_lower_priority_and_leaves_the_callers_alone() -> None:
    before = priority()
    assert in_background(priority) == min(before + NICENESS, 19)
    assert priority() == before


def test_raises_what_the_work_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 // 0)


def test_does_not_keep_what_failed_in_memory() -> None:
    half = weakref.WeakSet[threading.Event]()

    def fail() -> None:
        event = threading.Event()
        half.add(event)
        1 // event.is_set()

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError):
            in_background(fail)
        assert not half
    finally:
        gc.enable()


def test_a_process_does_not_wait_for_it_to_end() -> None:
    hangs = (
        "import threading, time; from models.loading.background import in_background; work = lambda: time.sleep(600);"
    )
    begin = "threading.Thread(target=in_background, args=(work,), daemon=True).start(); time.sleep(0.1)"
    assert subprocess.run([sys.executable, "-c", hangs + begin], timeout=30).returncode == 0


def test_a_model_is_loaded_in_it_and_translates_outside(make_model: MakeModel) -> None:
    loading = []

    class Noting(Held):
        @cached_property
        def checksum(self) -> Checksum:
            loading.append(priority())
            return Checksum.of(self.directory)

    before = set(threading.enumerate())
    with LocalTranslator.load(str(make_model()), held=Noting(make_model())):
        started = set(threading.enumerate()) - before
        lanes = [priority(thread.native_id) for thread in started if thread.name.startswith("lane-")]
    assert loading == [min(priority() + NICENESS, 19)]
    assert set(lanes) == {priority()}
