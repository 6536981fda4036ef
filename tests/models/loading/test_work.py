from __future__ import annotations

from dataclasses import dataclass

from models.engine.stats import EngineStats
from models.loading.work import OTHER, WorkDone


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
    work.begin("a", second)  # while the first is there still
    second.finished = 2
    assert finished(work) == {"a": 7}
    work.end(first)
    first.finished = 0  # nobody looks at it any more
    assert finished(work) == {"a": 7}
    work.end(second)
    assert finished(work) == {"a": 7}


def test_beyond_so_many_names_the_rest_is_told_as_one() -> None:
    work = WorkDone(named=2)
    for name in "abcdeacb":
        work.begin(name, model := Counted(1))
        work.end(model)
    assert finished(work) == {"a": 2, "b": 2, OTHER: 4}
