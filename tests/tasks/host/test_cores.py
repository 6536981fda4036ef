"""The division of the cores among a pool's workers."""

from __future__ import annotations

import pytest

from tasks.host.cores import divide, some


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


def test_a_quota_leaves_fewer_cores() -> None:
    bound = {3, 4, 5, 6}
    assert some(bound, 4) == [3, 4, 5, 6]
    assert {len(set(some(bound, 2))) for _ in range(20)} == {2}
    assert {core for _ in range(50) for core in some(bound, 2)} == bound
