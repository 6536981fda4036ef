"""Translators over a real broker, and one that is ill-treated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from app.broker.rpc import CeleryTranslator
from launch.rabbitmq import PrivateRabbitMQ
from tests.app.broker.answering import offering


@pytest.fixture
def connect() -> Iterator[Callable[..., CeleryTranslator]]:
    """Makes translators for models over a broker, which are closed after the test."""
    made: list[CeleryTranslator] = []

    def make(url: str, *models: str) -> CeleryTranslator:
        made.append(CeleryTranslator.from_config(offering(*models), url))
        return made[-1]

    yield make
    for translator in made:
        translator.close()


@pytest.fixture(scope="module")
def fragile(new_broker: Callable[[], PrivateRabbitMQ]) -> Iterator[PrivateRabbitMQ]:
    """A RabbitMQ to be ill-treated, and left in good health."""
    with new_broker() as running:
        yield running
