from __future__ import annotations

import pytest

from models.errors import UnknownModel
from models.loading.failures import FORGET, FORGET_AT_MOST, FailedLoads


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
