from __future__ import annotations

import math
from dataclasses import dataclass

from models.engine.stats import EngineStats
from models.loading.work import OTHER, WorkDone
from tests.models.loading.shelf import Make, Models, touch


@dataclass
class Counted:
    finished: int = 0

    def stats(self) -> EngineStats:
        return EngineStats(finished=self.finished)


def finished(work: WorkDone) -> dict[str, int]:
    return {name: stats.finished for name, stats in work.by_model().items()}


def test_is_kept_when_a_model_goes_and_added_to_when_it_comes_again() -> None:
    work, first, second = WorkDone(), Counted(), Counted()
    work.begin("a", first)
    first.finished = 5
    assert finished(work) == {"a": 5}
    work.begin("a", second)  # while the first still runs
    second.finished = 2
    assert finished(work) == {"a": 7}
    work.end(first)
    first.finished = 0  # the closed model is not asked any more
    assert finished(work) == {"a": 7}
    work.end(second)
    assert finished(work) == {"a": 7}


def test_beyond_so_many_names_the_rest_is_told_as_one() -> None:
    work = WorkDone(named=2)
    for name in "abcdeacb":
        work.begin(name, model := Counted(1))
        work.end(model)
    assert finished(work) == {"a": 2, "b": 2, OTHER: 4}


def test_what_engines_did_is_kept_when_they_go_and_come_again(models: Models) -> None:
    first = touch(models, "a")
    first.finished = 5
    closing: list[int] = []

    def end() -> None:
        first.finished += 1  # it finishes one more while it closes
        closing.append(models.work_done()["a"].finished)

    first.at_the_end = end
    touch(models, "b").finished = 7
    touch(models, "c", "d")
    assert models.work_done()["a"] == EngineStats(finished=6)
    touch(models, "a").finished = 10
    assert closing == [6]
    assert {name: (stats.finished, stats.lanes) for name, stats in models.work_done().items()} == {
        "a": (16, 1), "b": (7, 0), "c": (0, 1), "d": (0, 1)
    }  # fmt: skip
    models.close()
    assert {name: (stats.finished, stats.lanes) for name, stats in models.work_done().items()} == {
        "a": (16, 0), "b": (7, 0), "c": (0, 0), "d": (0, 0)
    }  # fmt: skip


def test_old_and_new_are_added_up_while_both_are_there(models: Models) -> None:
    touch(models, "a").finished = 1
    with models.use("a", math.inf):
        models.refresh("a")
        touch(models, "a").finished = 2
        assert models.work_done() == {"a": EngineStats(finished=3, lanes=2)}


def test_what_does_not_close_is_counted_all_the_same(models: Models) -> None:
    stuck = touch(models, "a")
    stuck.finished = 5
    stuck.at_the_end = lambda: 1 / 0
    touch(models, "b", "c", "d", "a")
    assert models.work_done()["a"].finished == 5


def test_beyond_so_many_models_the_rest_is_told_as_one(make: Make) -> None:
    models = make(named=2)
    for name in "abcdeacb":
        touch(models, name).finished += 1
    assert {name: stats.finished for name, stats in models.work_done().items()} == {"a": 2, "b": 2, OTHER: 4}
