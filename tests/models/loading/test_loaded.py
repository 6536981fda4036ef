"""The models in memory, with models that are none: who is loaded, who waits, and who goes."""

from __future__ import annotations

import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from models.engine.stats import EngineStats
from models.errors import DeadlineExceeded, ModelError, Overloaded, Unavailable, UnknownModel
from models.loading.background import NICENESS
from models.loading.failures import FORGET, FORGET_AT_MOST
from models.loading.footprint import footprint
from models.loading.loaded import LoadedModels
from models.loading.work import OTHER
from models.local import LocalTranslator

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel

LONG = 60.0  # seconds, to a deadline that shall not come
SHORT = 0.01  # to one that shall
SIZE = 10  # bytes of a model


@dataclass(eq=False)
class Fake:
    """A model, and what was fetched for it."""

    name: str
    bytes: int
    version: str
    device: str = "cpu"
    is_loaded: bool = False
    grace: float | None = None  # that it was closed with
    is_released: bool = False
    finished: int = 0  # sentences
    at_the_end: Callable[[], object] = tuple  # what else happens when it is closed

    @property
    def is_closed(self) -> bool:
        return self.grace is not None

    def cancel(self, group: str) -> int:
        return len(group)

    def stalled(self) -> float:
        return float(self.version)

    def stats(self) -> EngineStats:
        return EngineStats(finished=self.finished, lanes=0 if self.is_closed else 1)

    def close(self, grace: float = 0.0) -> None:
        assert self.is_loaded
        assert not self.is_closed
        self.grace = grace
        self.at_the_end()

    def release(self) -> None:
        assert self.is_closed == self.is_loaded
        assert not self.is_released
        self.is_released = True


@dataclass
class Shelf:
    """Where models come from. A stage is "fetch NAME" or "load NAME"; those that have a gate wait there."""

    sizes: dict[str, int] = field(default_factory=dict)
    estimates: dict[str, int] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    made: list[Fake] = field(default_factory=list)

    def shut(self, stage: str) -> threading.Event:
        self.gates[stage] = threading.Event()
        return self.gates[stage]

    def fetch(self, name: str) -> Fake:
        self._pass(f"fetch {name}")
        self.made.append(Fake(name, self.sizes.get(name, SIZE), version=str(len(self.made))))
        return self.made[-1]

    def load(self, name: str, fetched: Fake) -> Fake:
        assert name == fetched.name
        self._pass(f"load {name}")
        fetched.is_loaded = True
        return fetched

    def estimate(self, name: str, fetched: Fake) -> int:
        self._pass(f"estimate {name}")
        return self.estimates.get(name, fetched.bytes)

    def loads(self) -> list[str]:
        return [stage.removeprefix("load ") for stage in self.begun if stage.startswith("load ")]

    def gone(self) -> list[str]:
        """What was fetched and is released."""
        return [fake.name for fake in self.made if fake.is_released]

    def taken(self) -> int:
        return sum(fake.bytes for fake in self.made if fake.is_loaded and not fake.is_closed)

    def _pass(self, stage: str) -> None:
        self.begun.append(stage)
        if stage in self.gates:
            assert self.gates[stage].wait(LONG)
        if stage in self.errors:
            raise self.errors[stage]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


Models = LoadedModels[Fake, Fake]
Make = Callable[..., Models]
Begin = Callable[..., Future[Any]]
Eventually = Callable[..., None]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def make(shelf: Shelf) -> Iterator[Make]:
    """Makes one with memory for three models."""
    with ExitStack() as stack:

        def make(budget: int = 3 * SIZE, *, waiting: int = 100, **options: Any) -> Models:
            models = LoadedModels(shelf.fetch, shelf.load, budget, estimate=shelf.estimate, waiting=waiting, **options)
            stack.callback(models.close)
            return models

        yield make
        for gate in shelf.gates.values():
            gate.set()


@pytest.fixture
def models(make: Make) -> Models:
    return make()


@pytest.fixture
def begin(make: Make, eventually: Eventually) -> Iterator[Begin]:
    """Calls in a thread of its own; returns when that waits for a model, or has returned."""
    with ThreadPoolExecutor(32) as pool:

        def begin(call: Callable[..., Any], models: Models, *arguments: Any) -> Future[Any]:
            before = models.stats().waiting
            future = pool.submit(call, models, *arguments)
            eventually(lambda: models.stats().waiting > before or future.done())
            return future

        yield begin


def touch(models: Models, *names: str, seconds: float = LONG) -> Fake:
    """Uses one after the other, for no time; returns the last."""
    for name in names:
        with models.use(name, time.monotonic() + seconds) as model:
            assert (model.name, model.is_closed) == (name, False)
    return model


def names(models: Models) -> list[str]:
    return [each.name for each in models.loaded()]


# What is in memory, and what goes


def test_is_found_again(models: Models, shelf: Shelf) -> None:
    first = touch(models, "a")
    assert touch(models, "a") is first
    assert models.loaded() == (("a", "0", "cpu", SIZE),)
    assert shelf.loads() == ["a"]
    stats = models.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.waiting, stats.bytes) == (1, 1, 1, 0, SIZE)
    assert stats.budget == 3 * SIZE


def test_is_used_at_once_whatever_the_deadline(models: Models) -> None:
    touch(models, "a")
    touch(models, "a", seconds=-1)


def test_least_recently_used_goes_before_the_next_is_loaded(models: Models, shelf: Shelf) -> None:
    touch(models, "a", "b", "c", "a", "d")
    assert names(models) == ["c", "a", "d"]
    assert shelf.gone() == ["b"]
    assert models.stats().evictions == 1


def test_as_many_go_as_have_to(models: Models, shelf: Shelf) -> None:
    shelf.sizes["large"] = 2 * SIZE
    touch(models, "a", "b", "c", "large")
    assert names(models) == ["c", "large"]


def test_in_use_stays(models: Models, shelf: Shelf) -> None:
    with models.use("a", math.inf) as a, models.use("b", math.inf), models.use("c", math.inf):
        with pytest.raises(Overloaded, match="no room for d"):
            touch(models, "d", seconds=SHORT)
        assert not a.is_closed
    assert names(models) == ["a", "b", "c"]
    assert touch(models, "d").name == "d"
    assert names(models) == ["b", "c", "d"]


def test_nothing_goes_in_vain(models: Models, shelf: Shelf, begin: Begin) -> None:
    shelf.sizes["large"] = 3 * SIZE
    with models.use("a", math.inf):
        touch(models, "b")
        waits = begin(touch, models, "large")
        assert touch(models, "b").version == "1"
    assert waits.result(LONG).name == "large"
    assert names(models) == ["large"]


def test_larger_than_estimated(models: Models, shelf: Shelf, eventually: Eventually) -> None:
    shelf.sizes["liar"], shelf.estimates["liar"] = 2 * SIZE, SIZE
    touch(models, "a", "b", "liar")
    eventually(lambda: names(models) == ["b", "liar"] and shelf.gone() == ["a"])
    touch(models, "c", "d")
    assert names(models) == ["c", "d"]
    with models.use("c", math.inf), models.use("d", math.inf), pytest.raises(Overloaded):
        touch(models, "liar", seconds=SHORT)  # whose size is known by now
    assert shelf.begun.count("estimate liar") == 1
    models.drop("liar")  # and may be another
    with models.use("c", math.inf), models.use("d", math.inf):
        touch(models, "liar")


def test_what_exceeds_the_budget_goes_as_soon_as_it_may(models: Models, shelf: Shelf, eventually: Eventually) -> None:
    shelf.sizes["liar"], shelf.estimates["liar"] = 2 * SIZE, SIZE
    with models.use("a", math.inf), models.use("b", math.inf), models.use("liar", math.inf):
        assert shelf.taken() == 4 * SIZE
    eventually(lambda: shelf.taken() == 2 * SIZE)


def test_larger_than_the_budget(models: Models, shelf: Shelf, eventually: Eventually) -> None:
    shelf.sizes["huge"] = 40_000_000
    touch(models, "a")
    with pytest.raises(Unavailable, match=r"^huge takes 40 MB; TOLK_MEMORY gives models 0\.$"):
        touch(models, "huge")
    assert names(models) == ["a"]
    assert shelf.loads() == ["a"]
    eventually(lambda: shelf.gone() == ["huge"])


# Who waits


def test_one_load_for_all_who_wait(models: Models, shelf: Shelf, begin: Begin) -> None:
    gate = shelf.shut("load a")
    waiting = [begin(touch, models, "a") for _ in range(20)]
    gate.set()
    assert len({id(each.result(LONG)) for each in waiting}) == 1
    assert shelf.loads() == ["a"]


def test_all_who_waited_are_served_before_it_goes(models: Models, shelf: Shelf, begin: Begin) -> None:
    shelf.sizes |= dict.fromkeys("ab", 3 * SIZE)  # room for one of them
    gate = shelf.shut("load a")
    waiting = [begin(touch, models, name) for name in "ababab"]
    gate.set()
    assert [each.result(LONG).name for each in waiting] == [*"ababab"]
    assert shelf.loads() == ["a", "b"]


def test_a_cold_model_does_not_stall_the_others(models: Models, shelf: Shelf, begin: Begin) -> None:
    touch(models, "a")
    gates = [shelf.shut("load b"), shelf.shut("fetch c")]
    waiting = [begin(touch, models, "b"), begin(touch, models, "c")]
    touch(models, "a")
    assert models.stats().waiting == 2
    for gate in gates:
        gate.set()
    assert [each.result(LONG).name for each in waiting] == ["b", "c"]


def test_some_are_fetched_at_once_and_a_slow_one_holds_nobody_up(models: Models, shelf: Shelf, begin: Begin) -> None:
    gates = [shelf.shut(f"fetch slow-{i}") for i in range(3)]
    slow = [begin(touch, models, f"slow-{i}") for i in range(3)]
    touch(models, "a", "b")
    for gate in gates:
        gate.set()
    assert [each.result(LONG).name for each in slow] == [f"slow-{i}" for i in range(3)]


def test_nobody_is_overtaken(models: Models, shelf: Shelf, begin: Begin) -> None:
    shelf.sizes["large"] = 3 * SIZE
    with models.use("a", math.inf):
        large = begin(touch, models, "large")
        with pytest.raises(Overloaded):
            touch(models, "b", seconds=SHORT)  # for which there is room
        small = begin(touch, models, "b")
    assert [large.result(LONG).name, small.result(LONG).name] == ["large", "b"]
    assert shelf.loads() == ["a", "large", "b"]


def test_who_came_first_is_loaded_first_though_fetched_last(
    make: Make, shelf: Shelf, begin: Begin, eventually: Eventually
) -> None:
    models = make(6 * SIZE, fetching=2)
    loading, fetching, also_fetching = shelf.shut("load x"), shelf.shut("fetch a"), shelf.shut("fetch c")
    waiting = [begin(touch, models, name) for name in "xabcd"]
    eventually(lambda: "estimate b" in shelf.begun)
    fetching.set()
    eventually(lambda: "fetch d" in shelf.begun)  # by the thread that has done with a
    loading.set()
    eventually(waiting[2].done)
    assert shelf.loads()[:3] == ["x", "a", "b"]
    also_fetching.set()


def test_only_so_many_wait(make: Make, shelf: Shelf, begin: Begin) -> None:
    models, gate = make(waiting=2), shelf.shut("load a")
    waiting = [begin(touch, models, "a") for _ in range(2)]
    for name in "ab":
        with pytest.raises(Overloaded, match="2 callers wait"):
            touch(models, name)
    gate.set()
    assert [each.result(LONG).name for each in waiting] == ["a", "a"]
    assert touch(models, "b").name == "b"


def test_what_nobody_waits_for_until_it_is_loaded_is_loaded_all_the_same(
    models: Models, shelf: Shelf, eventually: Eventually
) -> None:
    gate = shelf.shut("load a")
    with pytest.raises(DeadlineExceeded, match="before a was loaded"):
        touch(models, "a", seconds=SHORT)
    eventually(lambda: shelf.loads() == ["a"])
    gate.set()
    eventually(lambda: names(models) == ["a"])


def test_what_nobody_waits_for_when_its_turn_comes_is_not_fetched(make: Make, shelf: Shelf, begin: Begin) -> None:
    models, gate = make(fetching=1), shelf.shut("fetch a")
    first = begin(touch, models, "a")
    with pytest.raises(DeadlineExceeded):
        touch(models, "b", seconds=SHORT)
    gate.set()
    first.result(LONG)
    touch(models, "c")
    assert "fetch b" not in shelf.begun


def test_what_nobody_waits_for_when_its_turn_comes_is_not_loaded(
    models: Models, shelf: Shelf, begin: Begin, eventually: Eventually
) -> None:
    gate = shelf.shut("load a")
    first = begin(touch, models, "a")
    with pytest.raises(DeadlineExceeded):
        touch(models, "b", seconds=SHORT)
    gate.set()
    first.result(LONG)
    touch(models, "c")
    assert shelf.loads() == ["a", "c"]
    assert shelf.gone() == ["b"]


# What fails


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
    assert "a did not close" in caplog.text
    assert names(models) == ["b", "c", "d"]


# What is kept, refreshed, dropped


def test_kept_stays(models: Models, shelf: Shelf) -> None:
    models.keep("a")
    models.keep("a")
    touch(models, "b", "c", "d", "e")
    models.keep("d")
    touch(models, "b", "c")
    assert names(models) == ["a", "d", "c"]
    assert shelf.loads() == [*"abcdebc"]


def test_kept_have_to_fit(make: Make, shelf: Shelf) -> None:
    models = make(50_000_000)
    shelf.sizes = dict.fromkeys("abcd", 20_000_000)
    models.keep("a")
    models.keep("b")
    with pytest.raises(
        Unavailable, match=r"^c takes 20 MB; TOLK_MEMORY gives models 50, of which warm models hold 40\.$"
    ):
        models.keep("c")
    with pytest.raises(Unavailable, match="d takes 20 MB"):
        touch(models, "d")
    with pytest.raises(Unavailable, match="a takes 20 MB"):
        models.refresh("a")
    assert names(models) == ["a", "b"]


def test_failed_keep_keeps_nothing(models: Models, shelf: Shelf) -> None:
    shelf.errors["load a"] = UnknownModel("broken")
    for _ in range(2):  # at once: whoever keeps a model says when
        with pytest.raises(UnknownModel, match="broken"):
            models.keep("a")
    shelf.errors.clear()
    models.keep("b")
    models.drop("b")
    models.refresh("a")
    touch(models, "b", "c", "d")
    assert names(models) == ["b", "c", "d"]


def test_drop_closes_what_nobody_uses(models: Models, shelf: Shelf, eventually: Eventually) -> None:
    models.keep("a")
    models.drop("a")
    models.drop("unheard-of")
    assert names(models) == []
    eventually(lambda: shelf.gone() == ["a"])


def test_drop_waits_for_who_uses_it(models: Models, shelf: Shelf, eventually: Eventually) -> None:
    with models.use("a", math.inf) as old:
        models.drop("a")
        new = touch(models, "a")
        assert new is not old
        assert not old.is_closed
        assert models.stats().bytes == 2 * SIZE
    eventually(lambda: old.is_released)
    assert touch(models, "a") is new


def test_drop_of_what_is_being_loaded(models: Models, shelf: Shelf, begin: Begin, eventually: Eventually) -> None:
    gate = shelf.shut("load a")
    waiting = [begin(touch, models, "a"), begin(LoadedModels.keep, models, "a")]
    eventually(lambda: shelf.loads() == ["a"])
    models.drop("a")
    again = begin(touch, models, "a")
    gate.set()
    first = waiting[0].result(LONG)
    waiting[1].result(LONG)
    assert again.result(LONG) is not first
    eventually(lambda: first.is_released)
    assert names(models) == ["a"]


def test_refresh_swaps(models: Models, shelf: Shelf, begin: Begin, eventually: Eventually) -> None:
    models.keep("a")
    gate = shelf.shut("load a")
    with models.use("a", math.inf) as old:
        refreshing = begin(LoadedModels.refresh, models, "a")
        assert touch(models, "a") is old
        gate.set()
        refreshing.result(LONG)
        new = touch(models, "a")
        assert new is not old
        assert not old.is_closed
    eventually(lambda: old.is_released)
    touch(models, "b", "c", "d")
    assert names(models) == ["a", "c", "d"]
    assert touch(models, "a") is new


def test_failed_refresh_changes_nothing(models: Models, shelf: Shelf) -> None:
    old = touch(models, "a")
    shelf.errors["load a"] = UnknownModel("broken")
    with pytest.raises(UnknownModel, match="broken"):
        models.refresh("a")
    assert touch(models, "a") is old


def test_refresh_of_what_is_being_loaded(models: Models, shelf: Shelf, begin: Begin, eventually: Eventually) -> None:
    gate = shelf.shut("fetch a")
    old = begin(touch, models, "a")
    eventually(lambda: shelf.begun == ["fetch a"])
    del shelf.gates["fetch a"]
    models.refresh("a")
    new = touch(models, "a")
    gate.set()
    assert old.result(LONG) is not new
    assert touch(models, "a") is new


def test_refresh_tries_again_what_has_failed(models: Models, shelf: Shelf) -> None:
    shelf.errors["load a"] = UnknownModel("broken")
    with pytest.raises(UnknownModel):
        touch(models, "a")
    shelf.errors.clear()
    models.refresh("a")
    assert touch(models, "a").name == "a"


# The end, and what is said of all


def test_close_ends_everything(models: Models, shelf: Shelf, begin: Begin, eventually: Eventually) -> None:
    gates = [shelf.shut(stage) for stage in ("load c", "fetch d")]
    touch(models, "a")
    with models.use("b", math.inf) as used:
        waiting = [begin(touch, models, name) for name in "cde"] + [begin(LoadedModels.keep, models, "c")]
        eventually(lambda: {"load c", "fetch d", "estimate e"} < set(shelf.begun))
        models.close(0.2)
        assert 0 < used.grace <= 0.2
    assert [type(each.exception(LONG)) for each in waiting] == [Unavailable] * 4
    for name in "ab":
        with pytest.raises(Unavailable, match="being closed"):
            touch(models, name)
    for call in (models.keep, models.refresh):
        with pytest.raises(Unavailable):
            call("a")
    for gate in gates:
        gate.set()
    eventually(lambda: sorted(shelf.gone()) == [*"abcde"])
    assert models.loaded() == ()


def test_close_waits_for_what_is_being_loaded(
    models: Models, shelf: Shelf, begin: Begin, eventually: Eventually
) -> None:
    gate = shelf.shut("load a")
    waits = begin(touch, models, "a")
    eventually(lambda: shelf.loads() == ["a"])
    waits.add_done_callback(lambda _: gate.set())  # as soon as it has been told that all is closing
    models.close(LONG)
    assert shelf.gone() == ["a"]


def test_seconds_of_loading(shelf: Shelf) -> None:
    clock = Clock()

    def load(name: str, fetched: Fake) -> Fake:
        clock.now += 2.0
        return shelf.load(name, fetched)

    models = LoadedModels(shelf.fetch, load, SIZE, estimate=shelf.estimate, waiting=1, clock=clock)
    for name in "ab":
        with models.use(name, math.inf):
            pass
    assert models.stats().loading == 4.0
    models.close()


def test_asked_of_all(models: Models) -> None:
    touch(models, "a")
    with models.use("b", math.inf):
        models.drop("b")
        assert models.cancel("four") == 8
        assert dict(models.stalled()) == {"a": 0.0, "b": 1.0}
        assert names(models) == ["a"]


def test_what_engines_did_is_kept_when_they_go_and_come_again(models: Models) -> None:
    first = touch(models, "a")
    first.finished = 5
    closing: list[int] = []

    def end() -> None:
        first.finished += 1  # what it still brings to its end
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


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux alone")
def test_threads_that_fetch_have_a_lower_priority_and_what_loading_starts_has_not(shelf: Shelf) -> None:
    found: dict[str, int] = {}

    def fetch(name: str) -> Fake:
        found["fetch"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return shelf.fetch(name)

    def load(name: str, fetched: Fake) -> Fake:
        found["load"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return shelf.load(name, fetched)

    models = LoadedModels(fetch, load, SIZE, estimate=shelf.estimate, waiting=1)
    touch(models, "a")
    models.close()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert found == {"fetch": min(own + NICENESS, 19), "load": own}


# Whatever happens


@pytest.mark.parametrize("seed", range(8))
def test_any_schedule(make: Make, shelf: Shelf, seed: int) -> None:
    """Many threads do what they like: what the fakes assert holds, and nobody waits for ever."""
    budget, names = 4 * SIZE, [f"model-{i}" for i in range(12)]
    chance = random.Random(seed)
    shelf.sizes = {name: chance.choice((SIZE, SIZE, 2 * SIZE)) for name in names}
    shelf.errors = {f"load {names[-1]}": UnknownModel("broken"), f"fetch {names[-2]}": UnknownModel("broken")}
    over: list[int] = []

    def load(name: str, fetched: Fake) -> Fake:
        if (taken := shelf.taken() + fetched.bytes) > budget:
            over.append(taken)
        return shelf.load(name, fetched)

    models = LoadedModels(shelf.fetch, load, budget, estimate=shelf.estimate, waiting=6)
    models.keep(names[0])
    kept = touch(models, names[0])

    def act(seed: int) -> int:
        chance, served = random.Random(seed), 0
        for _ in range(100):
            name = names[min(int(chance.expovariate(0.3)), len(names) - 1)]
            with suppress(Overloaded, DeadlineExceeded, UnknownModel):
                match chance.choices(("use", "hold", "drop", "refresh"), (20, 2, 1, 1))[0]:
                    case "use":
                        touch(models, name, seconds=chance.choice((0.0, 0.001, LONG)))
                        served += 1
                    case "hold":
                        with models.use(name, time.monotonic() + 0.01) as model:
                            with suppress(Overloaded, DeadlineExceeded, UnknownModel):
                                touch(models, chance.choice(names), seconds=0.01)
                            assert not model.is_closed
                    case "drop" if name != names[0]:
                        models.drop(name)
                    case "refresh" if name != names[0]:
                        models.refresh(name)
        return served

    with ThreadPoolExecutor(12) as pool:
        served = list(pool.map(act, range(100 * seed, 100 * seed + 12), timeout=LONG))
    assert min(served) > 0
    assert over == []
    assert touch(models, names[0]) is kept
    assert models.stats().bytes == shelf.taken() <= budget
    models.close(LONG)
    assert all(fake.is_released for fake in shelf.made)


def test_real_models(make_model: MakeModel) -> None:
    """Three tiny ones, and memory for two of them: everybody gets the translation of the model that was asked for."""
    directories = {str(inner): make_model(encoder_ffn_dim=inner) for inner in (20, 24, 28)}
    texts = ["Il pleut.", "Je vais dormir.", "Où est la gare ?"]

    def load(name: str, _: Fake) -> LocalTranslator:
        translator = LocalTranslator.load(str(directories[name]), precision="int8")
        translator.warm_up()
        return translator

    def translate(translator: LocalTranslator) -> list[str | None]:
        return [translation.text for translation in translator.translate(texts, target="eng").results]

    expected: dict[str, list[str | None]] = {}
    for name in directories:
        with load(name, Fake(name, 0, "")) as alone:
            expected[name] = translate(alone)
    largest = max(footprint(directory, precision="int8") for directory in directories.values())
    models = LoadedModels(
        lambda name: Fake(name, 0, ""),
        load,
        2 * largest,
        estimate=lambda name, _: footprint(directories[name], precision="int8"),
        waiting=8,
    )

    def ask(seed: int) -> None:
        for name in random.Random(seed).choices([*directories], k=5):
            with models.use(name, time.monotonic() + LONG) as translator:
                assert translate(translator) == expected[name]
                assert translator.stalled() < LONG

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    stats = models.stats()
    assert (stats.hits + stats.misses, stats.failures) == (20, 0)
    assert stats.evictions == stats.loads - len(models.loaded()) > 0
    assert stats.bytes <= 2 * largest
    assert all(each.version and each.device == "cpu" for each in models.loaded())
    finished = {name: stats.finished for name, stats in models.work_done().items()}
    assert finished.keys() == directories.keys()
    assert sum(finished.values()) >= 20 * len(texts) + stats.loads  # with those that warm up
    models.close()
    assert {name: stats.finished for name, stats in models.work_done().items()} == finished
