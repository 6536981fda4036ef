"""One question over the broker to every worker and to every web process, and a look at the queues."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from celery import Celery
from kombu import Connection, Consumer, Message, Producer, Queue
from kombu.pidbox import Mailbox

from app.monitoring.recent_errors import total
from app.monitoring.status import QueueStatus, Status, WebStatus
from tasks.contract.errors import TolkError
from tasks.contract.names import STATUS_COMMAND
from tasks.contract.worker import WorkerStatus
from tasks.queues.topology import dead_letter_queue

PATIENCE = 0.5  # seconds until who has not answered is not there
FRESH = 1.0  # seconds that a status stays good
KNOWN = 10.0  # seconds that it is better than nothing

CANCEL = "tolk_cancel"
WEB = Mailbox("tolk.web", type="fanout", accept=["json"], serializer="json")

logger = logging.getLogger(__name__)


class Surveys:
    """The latest status, whose making takes half a second; `take` makes one. Thread-safe."""

    def __init__(self, take: Callable[[], Status]) -> None:
        self._take = take
        self._taking = threading.Lock()
        self._latest = Status()
        self._taken = -math.inf

    def fresh(self) -> Status:
        """One that is a second old at most. However many want it, they wait for the same."""
        with self._taking:
            if time.monotonic() - self._taken >= FRESH:
                self._latest = self._take()
                self._taken = time.monotonic()
            return self._latest

    def known(self) -> Status:
        """What there is, at once: where that is not fresh, another one is made meanwhile; where it is old, nothing."""
        age = time.monotonic() - self._taken
        if age >= FRESH and not self._taking.locked():
            threading.Thread(target=self.fresh, name="survey", daemon=True).start()
        return self._latest if age < KNOWN else Status()

    def close(self) -> None:
        """Returns when none is being made."""
        with self._taking:
            pass


def answer(connection: Connection, name: str, tell: Callable[[], WebStatus], cancel: Callable[..., None]) -> Consumer:
    """What lets a web process answer others on this connection, as `name`; not yet consuming.

    They ask for its WebStatus, or to `cancel` a request, with the arguments that `ask_to_cancel` sends.
    """
    mailbox: Any = WEB(connection)  # a Mailbox; to celery-types, a Node
    node = mailbox.Node(
        name,
        channel=connection.default_channel,
        handlers={
            STATUS_COMMAND: lambda _state: asdict(tell()),
            CANCEL: lambda _state, **arguments: cancel(**arguments),
        },
    )
    consumer: Consumer = node.Consumer(callbacks=[node.handle_message])
    return consumer


def ask_to_cancel(producer: Producer, **arguments: str | None) -> None:
    """Asks every web process; the one that has the request answers to the queue `reply_to`."""
    question: Any = {"method": CANCEL, "arguments": arguments, "destination": None}
    exchange: Any = WEB.exchange
    producer.publish(question, exchange=exchange, declare=[exchange], serializer="json", retry=False)


def take(celery: Celery, connection: Connection, queues: Iterable[Queue], name: str, own: WebStatus) -> Status:
    """The status, with the `own` one of this process, `name`. Raises kombu's errors of a lost broker."""
    channel: Any = connection.default_channel
    found = {}
    for queue in queues:
        declared: Any = queue(channel).queue_declare()
        found[queue.name] = QueueStatus(queue.name, declared.message_count, declared.consumer_count)
    letters: Any = dead_letter_queue()(channel)
    dead_letters = letters.queue_declare().message_count
    workers, web = {}, {name: own}
    exchanges = [celery.control.mailbox.exchange, WEB.exchange]  # type: ignore[attr-defined]  # missing in celery-types
    for who, reply in _ask(connection, exchanges):
        try:
            if isinstance(reply, list) or "in_flight" in reply:
                web.setdefault(who, WebStatus.decode(reply))
            else:
                workers[who] = WorkerStatus.decode(reply)
        except (TolkError, LookupError, TypeError, ValueError) as error:  # of another release
            logger.warning("status of %s: %s", who, error)
    return Status(
        broker=True,
        queues=found,
        workers=dict(sorted(workers.items())),
        dead_letters=dead_letters,
        errors=total(count for who, each in web.items() if who != name for count in each.errors),
        in_flight=sum(each.in_flight for each in web.values()),
        oldest=_oldest(each.oldest for each in web.values()),
    )


def _oldest(told: Iterable[Mapping[str, float]]) -> dict[str, float]:
    oldest: dict[str, float] = {}
    for each in told:
        for queue, since in each.items():
            oldest[queue] = min(since, oldest.get(queue, since))
    return oldest


def _ask(connection: Connection, exchanges: list[Any]) -> Iterator[tuple[str, Any]]:
    """(name, reply) of all that answer, with Celery's remote control; its own client would wait for a lost broker."""
    replies: list[Message] = []
    inbox = Queue(f"tolk.survey.{uuid4().hex}", exclusive=True, durable=False)
    with Consumer(connection, [inbox], on_message=replies.append, no_ack=True, accept=["json"]):
        question = {
            "method": STATUS_COMMAND,
            "arguments": {},
            "destination": None,
            "ticket": inbox.name,
            "reply_to": {"exchange": "", "routing_key": inbox.name},
        }
        producer = Producer(connection, serializer="json")
        for exchange in exchanges:
            producer.publish(question, exchange=exchange, declare=[exchange], retry=False)
        until = time.monotonic() + PATIENCE
        while (left := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                connection.drain_events(timeout=left)
    for message in replies:
        yield from message.payload.items()
