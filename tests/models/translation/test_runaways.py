from __future__ import annotations

import pytest

from models.translation.runaways import Loop, longest_loop, runs_away, shorten


@pytest.mark.parametrize(
    ("tokens", "loop"),
    [
        ([], Loop(0, 1, 1)),
        ([1, 2, 3], Loop(0, 1, 1)),
        ([7, 7], Loop(0, 1, 2)),
        ([9, 1, 2, 1, 2, 1, 2, 8], Loop(1, 2, 3)),
        ([9, 1, 2, 1, 2, 1], Loop(1, 2, 2)),
        ([1, 1, 1, 1, 2], Loop(0, 1, 4)),
        ([5, 5, 1, 2, 3, 1, 2, 3], Loop(2, 3, 2)),
    ],
)
def test_longest_loop(tokens: list[int], loop: Loop) -> None:
    assert longest_loop(tokens) == loop


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    [
        ([1, 2, 3, 4], [5, 6], False),
        ([1, 1, 1, 2], [5, 6], False),
        ([1, 1, 1, 1], [5, 6], True),
        ([1, 2, 1, 2], [5, 6], False),
        ([9, 1, 2, 1, 2, 1, 2], [5, 6], True),
        ([1, 2] * 4, [5, 6] * 4, False),
        ([1, 2] * 8, [5, 6] * 4, False),
        ([1, 2] * 9, [5, 6] * 4, True),
        (list(range(20)) * 3, [5, 6], True),
    ],
)
def test_running_away_is_repeating_more_than_the_source(target: list[int], source: list[int], expected: bool) -> None:
    assert runs_away(target, source, ended=True) is expected


def test_a_refrain_that_never_ends_runs_away() -> None:
    assert runs_away([1, 2] * 8, [5, 6] * 4, ended=False)
    assert not runs_away([1, 2, 3, 4, 5], [5, 6] * 4, ended=False)


def test_shortened_tokens_say_a_loop_once() -> None:
    assert shorten([9, 1, 2, 1, 2, 1, 2, 1, 8, 4, 4, 4, 4]) == (9, 1, 2, 1, 8, 4)
    assert shorten([1, 2, 1, 2, 3]) == (1, 2, 1, 2, 3)
