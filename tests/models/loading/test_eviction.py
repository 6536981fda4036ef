"""Which models stay and which are evicted, with models that are only a name and a size."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from models.loading.eviction import Residents

SIZE = 10  # bytes of a model


@dataclass(eq=False)
class Resident:
    name: str
    bytes: int = SIZE
    is_idle: bool = True


Memory = Residents[Resident]


@pytest.fixture
def memory() -> Memory:
    """Room for three models, filled with a, b and c, of which a is the least recently used."""
    memory: Memory = Residents(3 * SIZE)
    for name in "abc":
        memory.serve(Resident(name))
    return memory


def serving(memory: Memory) -> str:
    return "".join(each.name for each in memory.serving)


def leaving(memory: Memory) -> str:
    return "".join(each.name for each in memory if each not in memory.serving)


def test_what_is_found_is_the_last_to_go(memory: Memory) -> None:
    found = memory.find("a")
    assert found is not None
    assert found.name == "a"
    assert serving(memory) == "bca"
    memory.make_room(SIZE)
    assert (serving(memory), leaving(memory), memory.evictions) == ("ca", "b", 1)
    assert memory.find("b") is None
    assert ("a" in memory, "b" in memory) == (True, False)


@pytest.mark.parametrize(("size", "left"), [(0, "abc"), (1, "bc"), (SIZE, "bc"), (SIZE + 1, "c"), (3 * SIZE, "")])
def test_as_many_go_as_have_to(memory: Memory, size: int, left: str) -> None:
    memory.make_room(size)
    assert serving(memory) == left
    assert memory.evictions == 3 - len(left)


def test_who_is_at_work_or_kept_stays(memory: Memory) -> None:
    memory.serving[0].is_idle = False
    memory.keep("b")
    memory.make_room(SIZE)
    assert serving(memory) == "ab"
    assert memory.kept_bytes == SIZE
    memory.unkeep("b")
    memory.make_room(2 * SIZE)
    assert serving(memory) == "a"


def test_nobody_goes_in_vain(memory: Memory) -> None:
    memory.serving[0].is_idle = False
    memory.make_room(3 * SIZE)
    assert serving(memory) == "abc"


def test_what_exceeds_the_budget_goes_though_nobody_comes(memory: Memory) -> None:
    memory.serving[1].bytes = 2 * SIZE
    assert memory.has_to_shrink
    memory.make_room(0)
    assert serving(memory) == "bc"
    assert memory.has_to_shrink  # until the leaving model is closed
    assert memory.pop_idle() is not None
    assert not memory.has_to_shrink


def test_who_leaves_takes_room_until_it_is_idle_and_closed(memory: Memory) -> None:
    memory.serving[0].is_idle = False
    memory.retire("a")
    memory.retire("a")
    assert (serving(memory), leaving(memory), memory.bytes) == ("bc", "a", 3 * SIZE)
    assert not memory.has_room(SIZE)
    assert memory.pop_idle() is None
    [*_, a] = memory
    a.is_idle = True
    assert memory.pop_idle() is a
    assert memory.pop_idle() is None
    assert memory.has_room(SIZE)
    assert not memory.has_room(SIZE + 1)
    assert memory.evictions == 0


def test_room_that_those_who_leave_will_give_is_not_made_twice(memory: Memory) -> None:
    for _ in range(3):
        memory.make_room(SIZE)
    assert serving(memory) == "bc"


def test_a_new_one_takes_the_place_of_the_old(memory: Memory) -> None:
    new = Resident("b")
    memory.serve(new)
    assert serving(memory) == "acb"
    assert memory.serving[-1] is new
    assert leaving(memory) == "b"


def test_what_never_served_is_closed_too(memory: Memory) -> None:
    memory.dismiss(failed := Resident("d", bytes=0))
    assert memory.bytes == 3 * SIZE
    assert memory.pop_idle() is failed


def test_the_end_is_of_all(memory: Memory) -> None:
    memory.retire("b")
    assert [each.name for each in memory.clear()] == ["a", "c", "b"]
    assert list(memory) == []


@pytest.mark.parametrize("seed", range(20))
def test_whoever_comes_and_goes(seed: int) -> None:
    """Models that are kept or in use stay; if room can be made, it is made."""
    chance = random.Random(seed)
    memory: Memory = Residents(10 * SIZE)
    memory.keep("0")
    for _ in range(200):
        name, size = str(chance.randrange(20)), chance.randrange(1, 4) * SIZE
        for each in memory:
            each.is_idle = chance.random() < 0.7
        before = memory.serving
        memory.find(name)
        memory.make_room(size)
        stays = [each for each in before if not each.is_idle or each.name == "0"]
        assert set(stays) <= set(memory.serving)
        free = memory.budget - sum(each.bytes for each in memory.serving)
        possible = memory.budget - sum(each.bytes for each in stays)
        assert free >= size or possible < size
        while memory.pop_idle():
            pass
        if memory.has_room(size):
            memory.serve(Resident(name, size))
    assert memory.evictions > 0
