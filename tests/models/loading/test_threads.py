"""Fake models are loaded and closed, and some fail to."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable

import pytest

from models.errors import ModelError, UnknownModel
from models.loading.background import NICENESS
from models.loading.loaded import LoadedModels
from tests.models.loading.shelf import LONG, SIZE, Begin, Clock, Eventually, Fake, Models, Shelf, names, touch


@pytest.mark.parametrize("stage", ["fetch", "estimate", "load"])
def test_error_is_everybodys(models: Models, shelf: Shelf, begin: Begin, stage: str, eventually: Eventually) -> None:
    shelf.errors[f"{stage} a"] = UnknownModel("It is broken.")
    gate = shelf.shut(f"{stage} a")
    waiting = [begin(touch, models, "a") for _ in range(3)]
    gate.set()
    errors = [each.exception(LONG) for each in waiting]
    assert [(type(error), str(error)) for error in errors] == [(UnknownModel, "It is broken.")] * 3
    assert len({id(error) for error in errors}) == 3
    assert all(error.__cause__ is None for error in errors if error)
    eventually(lambda: all(fake.is_released for fake in shelf.made))
    assert touch(models, "b").name == "b"
    assert models.stats().failures == 1


def test_an_error_of_another_kind_is_logged_and_not_quoted(
    models: Models, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.errors["load a"] = RuntimeError("private")
    with pytest.raises(ModelError, match=r"^a could not be loaded\. The log says why\.$"):
        touch(models, "a")
    assert "RuntimeError: private" in caplog.text
    assert touch(models, "b").name == "b"


def test_a_model_that_does_not_close_does_not_stop_the_others(models: Models, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("stuck")

    touch(models, "a").at_the_end = fail
    touch(models, "b", "c", "d")
    assert "a could not be closed" in caplog.text
    assert names(models) == ["b", "c", "d"]


def test_close_waits_for_what_is_being_loaded(
    models: Models, shelf: Shelf, begin: Begin, eventually: Eventually
) -> None:
    gate = shelf.shut("load a")
    waits = begin(touch, models, "a")
    eventually(lambda: shelf.loads() == ["a"])
    waits.add_done_callback(lambda _: gate.set())  # when it has got the error of closing
    models.close(LONG)
    assert shelf.gone() == ["a"]


def test_seconds_of_loading(shelf: Shelf) -> None:
    clock = Clock()

    def load(name: str, fetched: Fake) -> Fake:
        clock.now += 2.0
        return shelf.load(name, fetched)

    models = LoadedModels(shelf.find, shelf.fetch, load, SIZE, estimate=shelf.estimate, waiting=1, clock=clock)
    for name in "ab":
        with models.use(name, math.inf):
            pass
    assert models.stats().loading == 4.0
    models.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux alone")
def test_threads_that_fetch_have_a_lower_priority_and_what_loading_starts_has_not(shelf: Shelf) -> None:
    found: dict[str, int] = {}

    def fetch(name: str, _: Callable[[], bool]) -> Fake:
        found["fetch"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return shelf.fetch(name)

    def load(name: str, fetched: Fake) -> Fake:
        found["load"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return shelf.load(name, fetched)

    models = LoadedModels(shelf.find, fetch, load, SIZE, estimate=shelf.estimate, waiting=1)
    touch(models, "a")
    models.close()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert found == {"fetch": min(own + NICENESS, 19), "load": own}
