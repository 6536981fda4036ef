from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.broker.queues import RequestQueues
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import Priority, shared_route
from tasks.contract.request import TranslateRequest
from tasks.registry.file import RegistryFile

ENTRY = '[models.{}]\nreference = "fr-en"\npairs = [{{ source = "fr", target = "en" }}]\nwarm = {}\n'


def request(model: str, priority: Priority = "interactive") -> TranslateRequest:
    return TranslateRequest(texts=("un",), target="en", model=model, deadline=1.0, priority=priority)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a models.toml of models, warm or not."""

    def write(**models: bool) -> Path:
        path = tmp_path / "models.toml"
        path.write_text("".join(ENTRY.format(name, str(warm).lower()) for name, warm in models.items()))
        return path

    return write


def test_a_request_goes_into_the_queue_of_its_models_route(write: Callable[..., Path]) -> None:
    queues = RequestQueues(RegistryFile(write(hot=True, cold=False)))
    assert queues.of(request("hot")).name == "tolk.translate.hot.interactive"
    assert queues.of(request("hot", "bulk")).name == "tolk.translate.hot.bulk"
    assert queues.of(request("cold")).name == f"tolk.translate.{shared_route('cold')}.interactive"


def test_queues_follow_the_file(write: Callable[..., Path]) -> None:
    queues = RequestQueues(RegistryFile(write(a=True), look=0.0))
    names = ["tolk.translate.a.interactive", "tolk.translate.a.bulk"]
    assert [queue.name for queue in queues.for_translation()] == names
    assert [queue.name for queue in queues.for_suspects()] == ["tolk.suspects.a"]
    write(a=False, b=True)
    assert queues.of(request("a")).name == f"tolk.translate.{shared_route('a')}.interactive"
    assert len(list(queues.for_translation())) == 2 + 2 * 16
    assert [queue.name for queue in queues.for_suspects()] == ["tolk.suspects.b", "tolk.suspects.on-demand"]
    write(b=True)
    with pytest.raises(TolkError) as caught:  # between its arrival and its being sent
        queues.of(request("a"))
    assert caught.value.code is Code.UNKNOWN_MODEL
