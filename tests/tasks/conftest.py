from __future__ import annotations

import importlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import pytest

from app.broker.rpc import CeleryTranslator
from app.translation.translate import ask_models
from tasks.contract.names import Priority
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.registry.file import RegistryFile


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models.toml with two equal models, and one whose files do not exist."""
    path = tmp_path_factory.mktemp("models") / "models.toml"
    entry = '[models.{}]\nreference = "{}"\npairs = [{{ source = "fr", target = "en" }}]\n'
    path.write_text(entry.format("a", "fr-en") + entry.format("b", "fr-en") + entry.format("gone", "./gone"))
    return path


@pytest.fixture(scope="session")
def pretended() -> dict[str, str]:
    """The environment of a process on a pretended host with three GPUs; it prints what torch sees when imported."""
    path = [str(Path(__file__).parent / "pretended"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path)}


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, pretended: dict[str, str]) -> ModuleType:
    """The pretended module pynvml, in this process."""
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.syspath_prepend(pretended["PYTHONPATH"].partition(os.pathsep)[0])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return importlib.import_module("pynvml")


@pytest.fixture
def translator(broker, models: Path) -> Iterator[CeleryTranslator]:
    made = CeleryTranslator.from_config(RegistryFile(models), broker.url)
    yield made
    made.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


@pytest.fixture
def ask(translator: CeleryTranslator) -> Callable[..., TranslateReply]:
    """Lets the workers of model `a` translate texts."""

    def call(
        *texts: str, timeout: float = 60, request_id: str | None = None, priority: Priority = "interactive"
    ) -> TranslateReply:
        deadline = time.time() + timeout
        request = TranslateRequest(texts, source="fr", target="en", model="a", deadline=deadline, priority=priority)
        return ask_models(translator, request_id or str(uuid4()), [request])

    return call


@pytest.fixture
def free_ports(free_port: Callable[[], int]) -> Callable[[int], int]:
    """Finds adjacent free ports, as many as asked for, and returns the first of them."""

    def find(count: int) -> int:
        while True:
            first = free_port()
            with ExitStack() as held, suppress(OSError, OverflowError):
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                return first

    return find
