from __future__ import annotations

import math

import pytest

from models.errors import UnknownModel
from models.loading.failures import FORGET, FORGET_AT_MOST, FailedLoads
from tests.models.loading.shelf import Clock, Make, Shelf


def remembered(failed: FailedLoads, name: str) -> bool:
    try:
        failed.check(name)
    except UnknownModel:
        return True
    return False


def test_is_remembered_for_a_while_and_longer_each_time() -> None:
    now = 0.0
    failed = FailedLoads(lambda: now)
    assert not remembered(failed, "a")
    seconds = FORGET
    for _ in range(8):
        failed.add("a", UnknownModel("broken"))
        now += 0.9 * seconds
        assert (remembered(failed, "a"), remembered(failed, "b")) == (True, False)
        now += 0.11 * seconds
        assert not remembered(failed, "a")
        seconds = min(2 * seconds, FORGET_AT_MOST)
    failed.forget("a")
    failed.add("a", UnknownModel("broken"))
    now += FORGET
    assert not remembered(failed, "a")


def test_everybody_gets_an_error_of_his_own() -> None:
    failed = FailedLoads(lambda: 0.0)
    failed.add("a", error := UnknownModel("broken"))
    with pytest.raises(UnknownModel, match="broken") as caught:
        failed.check("a")
    assert caught.value is not error


def test_failure_is_remembered_for_a_while_and_longer_each_time(make: Make, shelf: Shelf) -> None:
    models = make(clock=(clock := Clock()))

    def fails() -> int:
        with pytest.raises(UnknownModel, match="broken"), models.use("a", math.inf):
            pass
        return models.stats().failures

    shelf.errors["load a"] = UnknownModel("broken")
    seconds, failures = FORGET, 0
    for _ in range(8):
        assert fails() == fails() == failures + 1
        clock.now += 0.9 * seconds
        assert fails() == failures + 1
        clock.now += 0.1 * seconds
        seconds, failures = min(2 * seconds, FORGET_AT_MOST), failures + 1
    shelf.errors.clear()
    for name in "abcd":
        with models.use(name, math.inf):
            pass
    shelf.errors["load a"] = UnknownModel("broken")
    assert fails() == failures + 1
    clock.now += FORGET
    assert fails() == failures + 2
