"""The models in a worker's memory, with a stub of a loader, and with real workers whose models.toml changes."""

from __future__ import annotations

import math
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.engine.options import DecodingOptions
from models.engine.stats import EngineStats
from models.errors import BadInput
from models.translation.call import Call
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import TranslateReply
from tasks.contract.request import RequestOptions, TranslateRequest
from tasks.contract.worker import FailedModel
from tasks.registry.entry import Entry
from tasks.registry.file import RegistryFile
from tasks.serving import Asked
from tasks.worker.models import Models, ServedModel
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


def test_why_a_model_cannot_be_loaded_is_told_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    entry = '[models.a]\nreference = "./{}"\nwarm = false\npairs = [{{ source = "fr", target = "en" }}]\n'
    path.write_text(entry.format("broken"))

    def load(entry: Entry, _fetched: object) -> Any:
        if entry.reference.endswith("broken"):
            raise BadInput("It has no target token.")
        return SimpleNamespace(bytes=1, version="1", device="cpu", stats=EngineStats, close=lambda grace: None)

    fetched = SimpleNamespace(release=lambda: None)
    loader: Any = SimpleNamespace(find=lambda entry: fetched, estimate=lambda entry, fetched: 1, load=load)
    models = Models(RegistryFile(path, look=0.0), loader, budget=9, waiting=1)
    assert models.failed() == ()
    with pytest.raises(TolkError) as caught, models.use("a", math.inf):
        pass
    assert (caught.value.code, "target token" in caught.value.message) == (Code.UNAVAILABLE, False)
    assert models.failed() == (FailedModel("a", "It has no target token."),)
    path.write_text(entry.format("whole"))
    models.memory.refresh("a")
    assert models.failed() == ()
    models.memory.close()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (RequestOptions(beam=2, length_penalty=0.5), DecodingOptions(beam=2, length_penalty=0.5)),
        (RequestOptions(beam=2, unset=("length_penalty",)), DecodingOptions(beam=2)),
        (RequestOptions(unset=("beam", "length_penalty")), DecodingOptions(beam=6)),
        (RequestOptions(beam=8, nbest=8, unset=("beam",)), DecodingOptions(beam=8, nbest=8, length_penalty=1.0)),
    ],
)
def test_the_models_own_options_hold_where_nobody_has_chosen_any(
    wanted: RequestOptions, expected: DecodingOptions
) -> None:
    calls: dict[str, Call] = {}
    translator: Any = SimpleNamespace(decoding=DecodingOptions(beam=6), translate_each=calls.update)
    request = TranslateRequest(("Un.",), "en", "a", deadline=math.inf, options=wanted)
    ServedModel(translator).translate({"id": Asked(request, math.inf, lambda: False)})
    assert calls["id"].options == expected


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
