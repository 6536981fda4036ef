"""Which queues a worker takes work from: those of the models that its registry names, for as long as it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from hashlib import blake2s
from typing import Any

from celery import bootsteps
from celery.worker import state
from kombu import Consumer as QueueConsumer
from kombu import Queue
from kombu.common import ignore_errors

from tasks.contract.names import SHARED, queue_names, suspects_name
from tasks.queues.topology import suspects_queue, translation_queues
from tasks.registry.file import RegistryFile

LINGER = 2  # looks; after so many nobody sends work any more where the registry does not lead
PART = 8  # a shared queue has so many times fewer messages in flight than the worker has threads

Receive = Callable[[Any], None]


class Subscriptions(bootsteps.StartStopStep):
    """Takes work of warm models as soon as they are in memory, of all models on demand, and of the suspects of both one
    at a time: the next when that one is answered. What -Q and -X said holds for models that come later, too.

    Of the workers that share the queues of models on demand each is preferred for some, and has only a few messages of
    each in flight, or one worker would hold what others have time for.
    """

    requires = ("celery.worker.consumer:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self.queues = consumer.app.amqp.queues
        self.registry: RegistryFile = consumer.app.conf.tolk_models
        self.routes = {route for route in self.registry.current().routes if self.queues.of(route)}
        self.unwanted: dict[str, float] = {}  # of these, since when
        self.consumed: set[str] = set()  # of these, since it has connected
        self.consumers: dict[str, QueueConsumer] = {}  # by queue; those of warm models are Celery's own consumer's
        for name in [name for route in SHARED for name in self.queues.of(route)]:
            self.queues.consume_from.pop(name, None)

    def start(self, consumer: Any) -> None:
        self.channel = consumer.connection.channel()
        self.consumed, self.consumers = set(), {}

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        self.look(consumer)
        hub.call_repeatedly(self.registry.look, self.look, consumer)

    def stop(self, consumer: Any) -> None:
        for each in self.consumers.values():
            ignore_errors(consumer, each.cancel)

    def look(self, consumer: Any) -> None:
        """Makes memory and queues what the registry says now. What is held of a model is answered, then it goes."""
        models, now = consumer.app.models, time.monotonic()
        wanted = {route for route in self.registry.current().routes if self.queues.of(route)}
        held = {request.delivery_info.get("routing_key") for request in list(state.requests.values())}
        answering = {
            route for route in models.warm if not held.isdisjoint([*self.queues.of(route), suspects_name(route)])
        }
        models.follow((wanted | self.routes | answering).difference(SHARED))
        self.routes |= {route for route in wanted if route in SHARED or route in models.warm}
        self.unwanted = {route: self.unwanted.get(route, now) for route in self.routes - wanted}
        self.routes -= {route for route, since in self.unwanted.items() if now - since >= LINGER * self.registry.look}
        for route in sorted(self.routes - self.consumed):
            self.consume(consumer, route)
        for route in self.consumed - self.routes:
            self.cancel(consumer, route)

    def consume(self, consumer: Any, route: str) -> None:
        receive = consumer.create_task_handler()
        for queue in translation_queues(route):
            if queue.name not in self.queues.of(route):
                continue
            if route in SHARED:
                queue.consumer_arguments = {"x-priority": preference(consumer.hostname, route)}
                self.open(consumer, queue, receive, max(1, consumer.controller.concurrency // PART))
            else:
                self.queues.add(queue)
                consumer.add_task_queue(queue.name)
        suspects = suspects_queue(route)
        if suspects.name not in self.consumers:
            self.open(consumer, suspects, partial(take_suspect, receive, suspects.name), 1)
        self.consumed.add(route)

    def open(self, consumer: Any, queue: Queue, receive: Receive, prefetch: int) -> None:
        opened = self.consumers[queue.name] = QueueConsumer(
            self.channel,
            [queue],
            accept=consumer.app.conf.accept_content,
            on_message=receive,
            on_decode_error=consumer.on_decode_error,
            prefetch_count=prefetch,
        )
        opened.consume()

    def cancel(self, consumer: Any, route: str) -> None:
        self.consumed.discard(route)
        needed = {suspects_name(other) for other in self.consumed}  # those of models on demand
        for name in [*queue_names(route), suspects_name(route)]:
            if name in self.queues.consume_from:
                del self.queues.consume_from[name]
                consumer.task_consumer.cancel_by_queue(name)
            elif name in self.consumers and name not in needed:
                self.consumers.pop(name).cancel()


def take_suspect(receive: Receive, queue: str, message: Any) -> None:
    message.delivery_info.update(exchange="", routing_key=queue)  # to hand it back here, and not where it died
    receive(message)


def preference(worker: str, route: str) -> int:
    """How much a worker is preferred for a shared route, of 31 bits: the one of the greatest has all its messages.

    That is rendezvous hashing, and the broker does it: it gives a message to the consumer of the highest priority that
    may have one more. So a model is loaded where it was before, and a worker that comes or goes moves only its own.
    """
    return int.from_bytes(blake2s(f"{worker} {route}".encode(), digest_size=4).digest()) >> 1
