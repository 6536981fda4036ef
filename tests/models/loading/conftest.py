from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from models.loading.loaded import LoadedModels
from tests.models.loading.shelf import SIZE, Begin, Eventually, Make, Models, Shelf


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def make(shelf: Shelf) -> Iterator[Make]:
    """Makes LoadedModels with memory for three models."""
    with ExitStack() as stack:

        def make(budget: int = 3 * SIZE, *, waiting: int = 100, **options: Any) -> Models:
            models = LoadedModels(
                shelf.find, shelf.fetch, shelf.load, budget, estimate=shelf.estimate, waiting=waiting, **options
            )
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
    """Calls a function in a new thread. Returns when the call waits for a model, or has returned."""
    with ThreadPoolExecutor(32) as pool:

        def begin(call: Callable[..., Any], models: Models, *arguments: Any) -> Future[Any]:
            before = models.stats().waiting
            future = pool.submit(call, models, *arguments)
            eventually(lambda: models.stats().waiting > before or future.done())
            return future

        yield begin
