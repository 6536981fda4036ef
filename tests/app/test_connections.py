from __future__ import annotations

import pytest

from app.connections import BACKOFF, backoff


@pytest.mark.parametrize(
    ("failures", "most"), [(1, BACKOFF[0]), (2, 2 * BACKOFF[0]), (20, BACKOFF[1]), (10_000, BACKOFF[1])]
)
def test_the_time_between_attempts_is_anything_up_to_a_limit_that_doubles(failures: int, most: float) -> None:
    times = [backoff(failures) for _ in range(1_000)]
    assert min(times) < 0.1 * most
    assert 0.9 * most < max(times) <= most
