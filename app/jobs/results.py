"""The results worker: `celery -A app.jobs.results worker`. It writes what workers reply to chunks of jobs into the
database, has texts that wait sent to workers, and sweeps. It has no model, and there may be several.
"""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery, bootsteps
from celery.signals import setup_logging
from celery.states import REVOKED, SUCCESS
from celery.worker.consumer import Consumer as CeleryConsumer
from sqlalchemy import Connection

from app.broker import messages
from app.database.transactions import Database
from app.jobs import recording
from app.jobs.dispatch import Dispatcher
from app.jobs.webhooks import Webhooks
from app.settings import Settings
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import Failure, TranslateReply
from tasks.registry.file import RegistryFile

logger = logging.getLogger(__name__)


class Recorder:
    """Writes the replies in messages to the database, and wakes the dispatcher, for which there is room then."""

    def __init__(self, database: Database, models: RegistryFile, wake: Callable[[], None]) -> None:
        self._database = database
        self._models = models
        self._wake = wake

    def take(self, message: Any) -> None:
        """Writes all replies of a kombu Message, and acknowledges it then. If the database does not answer, the broker
        has the message back."""
        try:
            if message.headers.get("x-first-death-reason") == "expired":
                task_id = str(message.properties.get("correlation_id"))
                self._database.run(lambda connection: recording.take_back(connection, task_id))
            else:
                self._record(messages.replies(message))
        except TolkError as error:
            logger.warning("a reply has to wait: %s", error.message)
            message.reject(requeue=True)
            return
        except Exception:  # the chunk is published again when its lease has passed
            logger.exception("a reply cannot be recorded")
        message.ack()
        self._wake()

    def _record(self, replies: list[tuple[str, object]]) -> None:
        registry = self._models.current()

        def record(connection: Connection) -> None:
            for task_id, body in replies:
                recording.record(connection, registry, task_id, _reply(task_id, body))

        self._database.run(record)


def _reply(task_id: str, body: Any) -> TranslateReply:
    """The reply in a body, with an error if it has none that can be read."""
    try:
        if isinstance(body, TolkError):
            raise body
        if body["status"] == REVOKED:
            return TranslateReply("", error=Failure(Code.CANCELLED, "The worker was told to cancel the task."))
        if body["status"] != SUCCESS:
            raise ValueError(f"the task ended as {body['status']}")
        return TranslateReply.decode(body["result"])
    except (TolkError, LookupError, TypeError, ValueError) as error:
        logger.error("could not read the reply to task %s: %s", task_id, error)
        return TranslateReply("", error=recording.UNREADABLE)


class RunJobs(bootsteps.StartStopStep):
    """The database and the dispatcher of a results worker. `worker.recorder` takes its messages."""

    def create(self, worker: Any) -> None:
        settings: Settings = worker.app.conf.tolk_settings
        models: RegistryFile = worker.app.conf.tolk_models
        self.database = Database(settings.database)
        self.dispatcher = Dispatcher(worker.app, self.database, models, settings.job_lease)
        worker.recorder = Recorder(self.database, models, self.dispatcher.wake)
        self.webhooks = Webhooks(self.database, settings.webhook_secret, private=settings.webhook_private)

    def start(self, _worker: Any) -> None:
        self.dispatcher.start()
        self.webhooks.start()

    def stop(self, _worker: Any) -> None:
        self.dispatcher.close()
        self.webhooks.close()
        self.database.close()

    def terminate(self, worker: Any) -> None:
        self.stop(worker)


class Consumer(CeleryConsumer):
    """Celery's consumer, for messages that are no tasks. It talks to no other worker."""

    controller: Any  # missing in celery-types

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc, valid-type]  # celery-types declares a variable
        # Without the 28 queues that Celery declares for tasks with an ETA.
        default_steps = set(CeleryConsumer.Blueprint.default_steps) - {
            "celery.worker.consumer.delayed_delivery:DelayedDelivery"
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        alone = {"without_mingle": True, "without_gossip": True, "without_heartbeat": True}
        super().__init__(*args, **kwargs | alone)

    def ensure_connected(self, conn: Any) -> Any:
        """Tries to connect once a second. Celery waits longer each time, up to half a minute."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_start=1, interval_step=0, interval_max=1)
        return super().ensure_connected(conn)

    def create_task_handler(self, *_: Any) -> Callable[[Any], None]:
        take: Callable[[Any], None] = self.controller.recorder.take
        return take


app = Celery("tolk-jobs", set_as_current=False)
app.config_from_object("app.jobs.configuration")
app.steps["worker"].add(RunJobs)


@setup_logging.connect(weak=False)
def set_up_log(**_: Any) -> None:
    logging.config.dictConfig(app.conf.tolk_settings.log_config)
