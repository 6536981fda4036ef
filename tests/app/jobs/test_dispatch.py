"""What the dispatcher does with chunks that cannot be published, at a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Queue
from sqlalchemy import make_url, select

from app import create_app
from app.database import tables
from app.database.transactions import Database
from app.jobs.dispatch import Dispatcher
from app.settings import Settings
from app.translation.translator import EchoTranslator
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.names import queue_name
from tasks.queues.topology import translation_queue
from tasks.registry.file import RegistryFile
from tests.app.jobs.conftest import SUBMIT

pytestmark = pytest.mark.broker
MODELS = """
[models.refused-by-the-broker]
reference = "./fr-en"
pairs = [{ source = "fr", target = "en" }]

[models.good-after-a-refused-one]
reference = "./en-de"
pairs = [{ source = "en", target = "de" }]
"""
REFUSED, GOOD = "refused-by-the-broker", "good-after-a-refused-one"


def test_a_queue_that_takes_nothing_holds_up_no_other(
    broker: PrivateRabbitMQ, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    path = tmp_path / "models.toml"
    path.write_text(MODELS)
    url = make_url(f"sqlite:///{tmp_path}/tolk.sqlite")
    client = create_app(Settings(models=path, database=url), EchoTranslator()).test_client()
    models = RegistryFile(path)
    routes = {name: entry.route for name, entry in models.current().models.items()}
    for source, target in (("fr", "en"), ("en", "de")):
        fields = {"texts": ["Un."], "source": source, "target": target}
        answer: Any = client.post("/graphql", json={"query": SUBMIT, "variables": {"input": fields}}).json
        assert "errors" not in answer, answer
    database = Database(url)
    with Connection(broker.url) as connection:
        # A queue of an earlier release, whose arguments were others.
        wrong: Any = Queue(queue_name(routes[REFUSED], "bulk"), durable=True)
        wrong(connection.default_channel).queue_declare()
        dispatcher = Dispatcher(Celery(broker=broker.url), database, models, 60.0)
        assert dispatcher.feed()
        good: Any = translation_queue(routes[GOOD], "bulk")
        eventually(lambda: good(connection.default_channel).queue_declare(passive=True).message_count == 1)
        rows = database.run(lambda transaction: transaction.execute(select(tables.job)).all())
        assert [(row.waiting, row.pauses) for row in rows] == [(1, 1), (0, 0)]
        assert not dispatcher.feed()  # that job pauses
        dispatcher.start()
        dispatcher.close()
        for queue in (wrong, good):
            queue(connection.default_channel).delete()
    database.close()
