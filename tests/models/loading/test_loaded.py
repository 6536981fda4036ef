"""The models in memory, tested with fake models: which are loaded, kept and evicted."""

from __future__ import annotations

import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from models.errors import DeadlineExceeded, Overloaded, Unavailable, UnknownModel
from models.loading.footprint import footprint
from models.loading.loaded import LoadedModels
from models.local import LocalTranslator
from tests.models.loading.shelf import LONG, SHORT, SIZE, Begin, Eventually, Fake, Make, Models, Shelf, names, touch

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel


# Models in memory, and eviction


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
        touch(models, "liar", seconds=SHORT)  # its size is known by now
    assert shelf.begun.count("estimate liar") == 1
    models.drop("liar")  # from now on its size may be another
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


# keep, refresh, drop


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
    for _ in range(2):  # `keep` tries at once, because its caller decides when to try again
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


# Closing, and statistics


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


def test_asked_of_all(models: Models) -> None:
    touch(models, "a")
    with models.use("b", math.inf):
        models.drop("b")
        assert models.cancel("four") == 8
        assert dict(models.stalled()) == {"a": 0.0, "b": 1.0}
        assert names(models) == ["a"]


# Random schedules


@pytest.mark.parametrize("seed", range(8))
def test_any_schedule(make: Make, shelf: Shelf, seed: int) -> None:
    """Many threads make random calls: the assertions of the fakes hold, and no call waits for ever."""
    budget, names = 4 * SIZE, [f"model-{i}" for i in range(12)]
    chance = random.Random(seed)
    shelf.sizes = {name: chance.choice((SIZE, SIZE, 2 * SIZE)) for name in names}
    shelf.errors = {f"load {names[-1]}": UnknownModel("broken"), f"fetch {names[-2]}": UnknownModel("broken")}
    over: list[int] = []

    def load(name: str, fetched: Fake) -> Fake:
        if (taken := shelf.taken() + fetched.bytes) > budget:
            over.append(taken)
        return shelf.load(name, fetched)

    models = LoadedModels(shelf.find, shelf.fetch, load, budget, estimate=shelf.estimate, waiting=6)
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
    """Three tiny models, and memory for two: every caller gets the translation of the model that it asked for."""
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
        lambda name, _: Fake(name, 0, ""),
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
    assert sum(finished.values()) >= 20 * len(texts) + stats.loads  # each load decodes a sentence to warm up
    models.close()
    assert {name: stats.finished for name, stats in models.work_done().items()} == finished
