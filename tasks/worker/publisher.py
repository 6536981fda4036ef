"""Publishes many messages before it waits for the broker's confirms, of which kombu waits for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amqp.exceptions import MessageNacked
from celery.utils.log import get_logger
from kombu import Connection, Producer

from tasks.queues.errors import BROKER_ERRORS

CONFIRM_TIMEOUT = 5.0  # seconds to wait for the broker's confirms of messages that were published together

logger = get_logger(__name__)


@dataclass(slots=True)
class Publication:
    """The arguments with which kombu publishes a message. `confirmed` is called when the broker has the message, and
    only once."""

    arguments: dict[str, Any]
    confirmed: Callable[[], object] = lambda: None
    is_confirmed: bool = False


class Publisher:
    """A connection of its own for one thread, made when it is needed."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.connection: Connection | None = None
        self._producer: Producer
        self._published = 0  # messages on this connection; the broker counts them, too
        self._unconfirmed: dict[int, Publication] = {}

    def publish(self, publications: Sequence[Publication]) -> None:
        """Publishes what is not confirmed yet, and returns when all is. Otherwise raises one of BROKER_ERRORS."""
        try:
            self._publish([each for each in publications if not each.is_confirmed])
        except BROKER_ERRORS:
            self.close()
            raise

    def close(self) -> None:
        self._unconfirmed.clear()
        if self.connection is not None:
            self.connection.collect()  # to close it properly might wait for a broker that does not answer
            self.connection = None

    def _publish(self, publications: Sequence[Publication]) -> None:
        connection = self.connection or self._connect()
        for each in publications:
            self._published += 1
            self._unconfirmed[self._published] = each
            self._producer.publish(**each.arguments, timeout=CONFIRM_TIMEOUT)
        until = time.monotonic() + CONFIRM_TIMEOUT
        while self._unconfirmed:
            connection.drain_events(timeout=max(0.001, until - time.monotonic()))

    def _connect(self) -> Connection:
        connection: Connection = self._app.connection_for_write(transport_options={"confirm_publish": False})
        channel: Any = connection.default_channel
        channel.confirm_select()
        channel.events["basic_ack"].add(self._confirm)
        channel.events["basic_nack"].add(_refuse)
        channel.events["basic_return"].add(_tell_of_loss)
        self.connection, self._producer, self._published = connection, Producer(channel), 0
        return connection

    def _confirm(self, number: int, multiple: bool) -> None:
        for each in [sent for sent in self._unconfirmed if sent <= number] if multiple else [number]:
            publication = self._unconfirmed.pop(each)
            publication.is_confirmed = True
            publication.confirmed()


def _tell_of_loss(_error: object, _exchange: str, queue: str, _message: object) -> None:
    """The broker returns a mandatory message for a queue that does not exist, and confirms it."""
    logger.error("there is no queue %s, so a message for it is lost; the worker of jobs makes it when it starts", queue)


def _refuse(*_: object) -> None:
    raise MessageNacked
