"""The cores of a pool's workers."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from tasks.host import cores
from tasks.host.cores import divide, usable_cores


@pytest.mark.parametrize(
    ("cores", "count", "divided"),
    [
        ([0, 1, 2, 3], 2, [{0, 1}, {2, 3}]),
        ([1, 3, 5, 7, 9], 2, [{1, 3}, {5, 7, 9}]),
        ([4, 6], 1, [{4, 6}]),
        ([4, 6], 3, [{4}, {6}, {4}]),
    ],
)
def test_cores_are_divided_and_shared_where_they_lack(cores: list[int], count: int, divided: list[set[int]]) -> None:
    assert divide(cores, count) == divided


def test_a_quota_leaves_fewer_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 4, 5, 6})
    monkeypatch.setattr(cores, "cpu_budget", lambda: SimpleNamespace(count=4))
    assert usable_cores() == [3, 4, 5, 6]
    monkeypatch.setattr(cores, "cpu_budget", lambda: SimpleNamespace(count=2))
    assert {len(set(usable_cores())) for _ in range(20)} == {2}
    assert {core for _ in range(50) for core in usable_cores()} == {3, 4, 5, 6}
