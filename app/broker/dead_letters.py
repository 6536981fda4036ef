"""Dead letters, the messages that no worker could process: shows what is wrong with them, requeues and deletes them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from amqp.exceptions import MessageNacked, NotFound, ResourceLocked
from kombu import Producer

from app.broker.celery import configured
from app.broker.connections import ANSWER_TIMEOUT, connect
from tasks.contract.delivery import again, defect
from tasks.contract.delivery import body as body_of
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import DEAD_LETTERS, DELIVERIES, PUBLISHED
from tasks.contract.request import TranslateRequest
from tasks.queues.errors import BROKER_ERRORS
from tasks.queues.topology import dead_letter_queue

FORCED_TIMEOUT = 60.0  # seconds that an expired request gets when it is requeued by force
NAME_CHARACTERS = 80  # of a name that a client chose, when it is printed
QUOTING_HEADERS = ("argsrepr", "kwargsrepr")  # headers in which Celery's client repeats the arguments


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. `request` is the request in it, or None if that cannot be read."""

    message: Any  # as kombu received it
    body: bytes
    request: TranslateRequest | None

    @classmethod
    def of(cls, message: Any) -> Letter:
        """The letter in a message that kombu received."""
        message.accept = {"application/json"}
        return cls(message, body_of(message), _request(message))

    @property
    def id(self) -> str:
        """The request's id, else the message's id, else the first digits of the body's SHA-256."""
        properties = self.message.properties
        named = properties.get("correlation_id") or properties.get("message_id") or self.message.headers.get("id")
        return printable(named) if named else f"sha256-{hashlib.sha256(self.body).hexdigest()[:12]}"

    @property
    def died(self) -> str:
        """When the message became a dead letter, in UTC."""
        time_of_death = self._death.get("time")  # AMQP's times are in UTC
        return f"{time_of_death:%Y-%m-%d %H:%M:%SZ}" if time_of_death else "unknown"

    @property
    def queue(self) -> str:
        """The queue that the letter came from."""
        return printable(self._death.get("queue", "unknown"))

    @property
    def deliveries(self) -> int:
        """How often the message was delivered to a worker."""
        return DELIVERIES if self._exhausted else 1

    @property
    def reason(self) -> str:
        """Why the letter is here. RabbitMQ says only `rejected` or `delivery_limit`; the message shows the rest."""
        if self._exhausted:
            return "its worker ended at every delivery, due to this or another message"
        return defect(self.message) or "Celery could not read it; the worker's log says why"

    @property
    def _exhausted(self) -> bool:
        return bool(self._death.get("reason") == "delivery_limit")

    @property
    def _death(self) -> Any:
        return (self.message.headers.get("x-death") or [{}])[0]

    def describe(self) -> dict[str, object]:
        """What is known of the letter, by name, without the texts of the request."""
        known: dict[str, object] = {
            "id": self.id,
            "died": self.died,
            "queue": self.queue,
            "reason": self.reason,
            "deliveries": self.deliveries,
            "bytes": len(self.body),
        }
        if self.request is not None:
            texts, now = self.request.texts, time.time()
            left = self.request.deadline - now
            known["asks for"] = (
                f"{len(texts)} texts, {sum(map(len, texts))} characters, to {printable(self.request.target)}"
            )
            known["deadline"] = f"in {left:.0f} s" if left > 0 else f"{-left:.0f} s ago: nobody waits for the answer"
        properties = {name: value for name, value in self.message.properties.items() if name != "application_headers"}
        headers = {name: value for name, value in self.message.headers.items() if name not in QUOTING_HEADERS}
        return known | {printable(name): printable(value) for name, value in (properties | headers).items()}

    def readable(self) -> str:
        """The body, texts included: JSON is indented, anything else is written as Python's bytes. Characters that could
        control a terminal are escaped."""
        try:
            text = json.dumps(json.loads(self.body), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            return repr(self.body)
        return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


class DeadLetterQueue:
    """The dead-letter queue, opened by one process at a time. Letters that are not deleted or requeued stay in
    place."""

    def __init__(self, channel: Any, queue: str) -> None:
        self._channel = channel
        self._queue = queue
        self._held = 0

    def __len__(self) -> int:
        return int(self._channel.queue_declare(self._queue, passive=True).message_count)

    def __iter__(self) -> Iterator[Letter]:
        """The letters in the queue now, the oldest first. Iterate only once: each letter is held until `close`."""
        for _ in range(len(self)):
            if (raw := self._channel.basic_get(self._queue)) is None:
                return
            # Without this header kombu does not decompress the body, which could become arbitrarily large.
            packed = (raw.properties.get("application_headers") or {}).pop("compression", None)
            message = self._channel.message_to_python(raw)
            if packed is not None:
                message.headers["compression"] = packed
            self._held += 1
            yield Letter.of(message)

    def delete(self, letter: Letter) -> None:
        """Deletes the letter for good."""
        letter.message.ack()
        self._held -= 1

    def requeue(self, letter: Letter, *, force: bool = False) -> None:
        """Puts the letter back into the queue that it came from, as a new message.

        Raises TolkError if nobody can be waiting for its answer any more. With `force` it is requeued all the same, and
        a request gets a new deadline. Also raises TolkError if the queue is gone or full.
        """
        now = time.time()
        publication = again(letter.message, now)
        publication["headers"][PUBLISHED] = now
        request = letter.request
        if request is not None and request.deadline > now:
            publication["expiration"] = request.deadline - now
        elif not force:
            raise TolkError(Code.TIMEOUT, f"{letter.id} stays: {_late(request, now)}, so nobody waits for its answer.")
        elif request is not None:
            [payload], *rest = letter.message.payload
            deadline = now + FORCED_TIMEOUT
            publication["body"] = json.dumps([[{**payload, "deadline": deadline}], *rest])
            publication["expiration"] = FORCED_TIMEOUT
        try:
            with self._channel.connection.channel() as probe:  # the broker silently drops a message without a queue
                probe.queue_declare(letter.queue, passive=True)
            Producer(self._channel).publish(routing_key=letter.queue, **publication)
        except NotFound:
            raise TolkError(Code.UNKNOWN_MODEL, f"{letter.id} stays: there is no queue {letter.queue}.") from None
        except MessageNacked:
            raise TolkError(Code.OVERLOADED, f"{letter.id} stays: {letter.queue} is full.") from None
        self.delete(letter)

    def close(self) -> None:
        """Returns when all letters that stay are back in the queue, which RabbitMQ does a moment after its answer."""
        whole, connection = len(self) + self._held, self._channel.connection
        self._channel.close()
        self._channel = connection.channel()
        until = time.monotonic() + ANSWER_TIMEOUT
        while len(self) < whole and time.monotonic() < until:
            time.sleep(0.01)


@contextmanager
def opened(broker: str | None = None) -> Iterator[DeadLetterQueue]:
    """The dead letters on the broker at this URL, by default the one that celeryconfig names.

    Raises TolkError if the broker cannot be used, or if another process has the dead letters open: that process holds
    the letters, so a second one would see too few.
    """
    connection: Any = configured(broker).connection_for_write()
    try:
        connect(connection, ANSWER_TIMEOUT)
        channel = connection.default_channel
        channel.queue_declare(f"{DEAD_LETTERS}.lock", exclusive=True)
        queue = dead_letter_queue()(channel)
        queue.declare()
        letters = DeadLetterQueue(channel, queue.name)
        try:
            yield letters
        finally:
            letters.close()
    except ResourceLocked:
        raise TolkError(Code.UNAVAILABLE, "Somebody else has the dead letters open. Try again in a moment.") from None
    except BROKER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise TolkError(Code.UNAVAILABLE, f"The broker {connection.as_uri()} does not answer: {reason}") from error
    finally:
        connection.release()


def printable(value: object) -> str:
    """Text from outside on one line of at most NAME_CHARACTERS, without characters that could control a terminal."""
    text = str(value)
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return shown if len(shown) <= NAME_CHARACTERS else f"{shown[:NAME_CHARACTERS]}…"


def _request(message: Any) -> TranslateRequest | None:
    if defect(message) is not None:
        return None
    try:
        return TranslateRequest.decode(message.payload[0][0])
    except TolkError:
        return None


def _late(request: TranslateRequest | None, now: float) -> str:
    return "it has no deadline" if request is None else f"its deadline passed {now - request.deadline:.0f} s ago"
