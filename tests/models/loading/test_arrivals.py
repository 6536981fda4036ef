"""Callers that wait for fake models, and the order in which these are loaded."""

from __future__ import annotations

import math

import pytest

from models.errors import DeadlineExceeded, Overloaded, Unavailable
from tests.models.loading.shelf import LONG, SHORT, SIZE, Begin, Eventually, Make, Models, Shelf, names, touch


def test_one_load_for_all_who_wait(models: Models, shelf: Shelf, begin: Begin) -> None:
    gate = shelf.shut("load a")
    waiting = [begin(touch, models, "a") for _ in range(20)]
    gate.set()
    assert len({id(each.result(LONG)) for each in waiting}) == 1
    assert shelf.loads() == ["a"]


def test_all_who_waited_are_served_before_it_goes(models: Models, shelf: Shelf, begin: Begin) -> None:
    shelf.sizes |= dict.fromkeys("ab", 3 * SIZE)  # there is room for one of them
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


def test_what_is_on_the_disk_does_not_wait_for_downloads(models: Models, shelf: Shelf, begin: Begin) -> None:
    shelf.local |= {"a", "b"}
    gates = [shelf.shut(f"fetch slow-{i}") for i in range(8)]
    slow = [begin(touch, models, f"slow-{i}") for i in range(8)]
    touch(models, "a", "b")
    for gate in gates:
        gate.set()
    assert [each.result(LONG).name for each in slow] == [f"slow-{i}" for i in range(8)]


def test_a_host_that_is_slow_leaves_downloads_to_others(
    models: Models, shelf: Shelf, begin: Begin, eventually: Eventually
) -> None:
    shelf.hosts |= {f"slow-{i}": "slow" for i in range(6)}
    gates = [shelf.shut(f"fetch slow-{i}") for i in range(6)]
    slow = [begin(touch, models, f"slow-{i}") for i in range(6)]
    eventually(lambda: len(shelf.sought) == 6)
    touch(models, "a", "b")
    assert sum(stage.startswith("fetch slow") for stage in shelf.begun) == 2
    for gate in gates:
        gate.set()
    assert [each.result(LONG).name for each in slow] == [f"slow-{i}" for i in range(6)]


def test_a_download_is_wanted_while_somebody_waits_and_a_while_longer(
    make: Make, shelf: Shelf, begin: Begin, eventually: Eventually
) -> None:
    models = make(grace=0.0)
    gate = shelf.shut("fetch a")
    waiting = begin(touch, models, "a")
    eventually(lambda: "fetch a" in shelf.begun)
    assert shelf.wanted["a"]()
    gate.set()
    waiting.result(LONG)

    gate = shelf.shut("fetch b")
    with pytest.raises(DeadlineExceeded):
        touch(models, "b", seconds=SHORT)
    eventually(lambda: not shelf.wanted["b"]())
    shelf.errors["fetch b"] = Unavailable("The download was given up.")
    gate.set()
    eventually(lambda: models.stats().failures == 1)
    del shelf.errors["fetch b"]
    touch(models, "b")  # the next one is not told of it


def test_a_download_outlasts_its_callers_for_a_while(make: Make, shelf: Shelf, eventually: Eventually) -> None:
    models = make(grace=LONG)
    gate = shelf.shut("fetch a")
    with pytest.raises(DeadlineExceeded):
        touch(models, "a", seconds=SHORT)
    eventually(lambda: "a" in shelf.wanted)
    assert shelf.wanted["a"]()
    gate.set()
    touch(models, "a")
    assert shelf.begun.count("fetch a") == 1


def test_nobody_is_overtaken(models: Models, shelf: Shelf, begin: Begin) -> None:
    shelf.sizes["large"] = 3 * SIZE
    with models.use("a", math.inf):
        large = begin(touch, models, "large")
        with pytest.raises(Overloaded):
            touch(models, "b", seconds=SHORT)  # there is room for b
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
    eventually(lambda: "fetch d" in shelf.begun)  # the thread that has fetched a does it
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
