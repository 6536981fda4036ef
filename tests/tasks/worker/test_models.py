"""The models in a worker's memory, with a stub of a loader, and with real workers whose models.toml changes."""

from __future__ import annotations

import math
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.engine.stats import EngineStats
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import TranslateReply
from tasks.registry.file import RegistryFile
from tasks.worker.models import Models
from tests.tasks.worker.conftest import COLD, Offer


def test_a_model_that_is_not_known_makes_it_look_at_once(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    entry = '[models.{}]\nreference = "./there"\nwarm = false\npairs = [{{ source = "fr", target = "en" }}]\n'
    path.write_text(entry.format("old"))
    made = SimpleNamespace(bytes=1, version="1", device="cpu", stats=EngineStats, close=lambda grace: None)
    loader: Any = SimpleNamespace(
        find=lambda model: SimpleNamespace(release=lambda: None),
        estimate=lambda model, fetched: 1,
        load=lambda model, fetched: made,
    )
    models = Models(RegistryFile(path), loader, budget=1, waiting=1)
    with (
        pytest.raises(TolkError, match=r"There is no model 'new'\. Models: old") as caught,
        models.use("new", math.inf),
    ):
        pass
    assert caught.value.code is Code.UNKNOWN_MODEL
    path.write_text(entry.format("old") + entry.format("new"))
    with models.use("new", math.inf) as found:
        assert found.translator is made
    models.memory.close()


@pytest.mark.broker
def test_models_on_demand_come_and_go_within_the_memory_for_them(offer: Offer, start, eventually, client_of) -> None:
    offer.say(hot={}, one=COLD, two=COLD, three=COLD, huge={**COLD, "reference": "./9000-bytes"})
    worker, client = start(TOLK_MEMORY="3KB"), client_of()
    for name in ("one", "two", "one", "three", "hot"):
        assert client.ask(name).results[0].text == "un"
    eventually(lambda: client.memory() == {"hot": True, "one": False, "three": False})
    [status] = client.translator.status().workers.values()
    assert (status.loads, status.evictions) == (4, 1)
    assert sum(model.bytes for model in status.models) == 3000
    assert client.ask("two").timings.load > 0
    assert client.fails("huge").code is Code.UNAVAILABLE
    assert worker.stop() == 0


@pytest.mark.broker
def test_a_model_on_demand_is_loaded_as_its_entry_says(offer: Offer, start, eventually, client_of) -> None:
    entry = {**COLD, "reference": "fr-en", "precision": "float32", "example": "Il pleut."}
    offer.say(cold=entry)
    worker, client = start(app="tasks"), client_of()
    assert not worker.says("loading")
    reply = client.ask("cold", "Je vais dormir.", timeout=60)
    assert reply.results[0].text
    assert worker.says("cold computes in float32")
    offer.say(cold={**entry, "precision": "bfloat16"})
    eventually(partial(worker.says, "cold computes in bfloat16"))
    assert client.ask("cold", "Je vais dormir.").version == reply.version
    [status] = client.translator.status().workers.values()
    assert 1e7 < sum(model.bytes for model in status.models) < 1e9
    assert worker.stop() == 0


@pytest.mark.broker
def test_models_that_load_slowly_leave_threads_to_the_others(offer: Offer, start, eventually, client_of) -> None:
    cold = [f"cold-{number}" for number in range(6)]
    offer.say(hot={}, **{name: {**COLD, "reference": "./2-seconds"} for name in cold})
    worker, client = start(TOLK_CONCURRENCY="4"), client_of()
    begun = [client.begin(name, request_id=name) for name in cold]
    eventually(lambda: all(worker.logged(name, "received") for name in cold))
    assert client.ask("hot").timings.queue < 1
    assert not any(each.done() and each.exception() is None for each in begun)  # while they load
    outcomes = [each.exception() or each.result() for each in begun]
    refused = [each for each in outcomes if isinstance(each, TolkError)]
    assert [each.code for each in refused] == [Code.OVERLOADED] * 4  # half of the threads may wait
    assert all(each.retry_after and 1 <= each.retry_after < 3 for each in refused)
    loaded = [each.timings.load for each in outcomes if isinstance(each, TranslateReply)]
    assert len(loaded) == 2
    assert min(loaded) > 1


@pytest.mark.broker
def test_a_worker_whose_model_loads_for_ever_can_be_stopped(offer: Offer, start, eventually, client_of) -> None:
    offer.say(hot={}, stuck={**COLD, "reference": "./hanging"})
    worker, client = start(), client_of()
    waits = client.begin("stuck", request_id="stuck", timeout=4)
    eventually(partial(worker.says, "loading stuck"))
    assert client.ask("hot").results[0].text == "un"
    assert client.memory() == {"hot": True}
    assert worker.stop(signal.SIGQUIT) == 0
    assert worker.logged("stuck", "reject requeue=True")  # so that another worker takes it
    error = waits.exception()
    assert isinstance(error, TolkError)
    assert error.code is Code.TIMEOUT


@pytest.mark.broker
def test_a_model_that_cannot_be_loaded_is_an_error_and_nothing_more(offer: Offer, start, client_of) -> None:
    offer.say(hot={}, broken={**COLD, "reference": "./broken"})
    worker, client = start(), client_of()
    for _ in range(3):
        error = client.fails("broken")
        assert (error.code, error.retry_after) == (Code.UNAVAILABLE, 1.0)
        assert "broken is broken" not in error.message  # the caller must not see the paths of models
    assert worker.log.read_text().count("broken cannot be loaded") == 1
    assert client.ask("hot").results[0].text == "un"
