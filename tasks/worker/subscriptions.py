"""Subscribes a worker to the queues of its registry's models, and follows the registry when it changes."""

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

from tasks.contract.names import SHARED, queue_name, queue_names, suspects_name
from tasks.queues.topology import suspects_queue, translation_queues
from tasks.registry.file import RegistryFile
from tasks.worker.thread import part

LINGER = 2  # checks of the registry after which no web process sends work to a removed route any more

Receive = Callable[[Any], None]


class Subscriptions(bootsteps.StartStopStep):
    """Consumes the queues of warm models once these are in memory, the shared queues, and the queues of suspects.

    Suspects are taken one at a time: the next one when the last one is answered. The selection of -Q and -X also
    applies to models that come later.

    Workers share the queues of models on demand. Each worker is preferred for some of them, and holds only a few
    messages of each, so that it does not hold messages for which others have time. Of each bulk queue, too, it holds
    only a few messages: they have few threads (tasks.worker.thread), and their texts may be large.
    """

    requires = ("celery.worker.consumer:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self.queues = consumer.app.amqp.queues
        self.registry: RegistryFile = consumer.app.conf.tolk_models
        self.routes = {route for route in self.registry.current().routes if self.queues.of(route)}
        self.unwanted: dict[str, float] = {}  # the routes that left the registry, and when
        self.consumed: set[str] = set()  # the routes that are consumed on the present connection
        self.consumers: dict[str, QueueConsumer] = {}  # by queue, without those of Celery's own consumer
        # Celery's own consumer takes only the interactive queues of warm models.
        own = {queue_name(route, "interactive") for route in self.routes.difference(SHARED)}
        for name in set(self.queues.consume_from) - own:
            del self.queues.consume_from[name]

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
        """Updates the models in memory and the subscriptions to the registry.

        A model that left the registry stays until the requests that the worker holds for it are answered.
        """
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
            if route in SHARED or queue.name == queue_name(route, "bulk"):
                self.open(consumer, queue, receive, part(consumer.controller.concurrency))
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
        needed = {suspects_name(other) for other in self.consumed}  # all shared routes have one suspects' queue
        for name in [*queue_names(route), suspects_name(route)]:
            if name in self.queues.consume_from:
                del self.queues.consume_from[name]
                consumer.task_consumer.cancel_by_queue(name)
            elif name in self.consumers and name not in needed:
                self.consumers.pop(name).cancel()


def take_suspect(receive: Receive, queue: str, message: Any) -> None:
    # If it is handed back, it has to return to this queue, and not to the one from which it was dead-lettered.
    message.delivery_info.update(exchange="", routing_key=queue)
    receive(message)


def preference(worker: str, route: str) -> int:
    """The consumer priority of a worker for a shared route, a number of 31 bits (rendezvous hashing).

    The broker gives a message to the consumer with the highest priority that may hold one more. So the requests of a
    model go to the same worker, which has it in memory, and a worker that comes or goes moves only its own routes.
    """
    return int.from_bytes(blake2s(f"{worker} {route}".encode(), digest_size=4).digest()) >> 1
