"""Which queues there are, how long they may grow, what a full one does, and where poison goes.

A queue cannot be declared again with other arguments: a change of these needs a new name.
"""

from __future__ import annotations

from typing import Any, get_args

from kombu import Exchange, Queue, binding

from tasks.contract.names import (
    DEAD_LETTERS,
    DELIVERIES,
    EXCHANGE,
    SHARED,
    Priority,
    queue_name,
    queue_names,
    suspects_name,
)

DEAD_LETTER_QUEUE = f"{DEAD_LETTERS}.kept"  # the queue of the dead letters
IDLE = 3600 * 1000  # milliseconds that a queue stays of which nobody takes messages and that nobody declares again
MAX_LENGTH: dict[Priority, int] = {"interactive": 1_000, "bulk": 10_000}


def translation_queue(route: str, priority: Priority) -> Queue:
    """A route's queue."""
    name = queue_name(route, priority)
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-expires": IDLE,
        "x-delivery-limit": DELIVERIES - 2,  # how often a message may come back; the last delivery is the suspects'
        "x-max-length": MAX_LENGTH[priority],
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": DEAD_LETTERS,
    }
    return Queue(name, Exchange(EXCHANGE, "direct"), routing_key=name, queue_arguments=arguments)


def translation_queues(route: str) -> list[Queue]:
    """Interactive work, then bulk."""
    return [translation_queue(route, priority) for priority in get_args(Priority)]


def suspects_queue(route: str) -> Queue:
    """Where requests wait that came back too often: a warm model's, or those for all models on demand.

    Each is delivered once more, with no other suspect. One of them kills its process, and took the others along:
    together they would all become dead letters. Here none expires, for RabbitMQ takes the expiration off whatever it
    puts here.
    """
    routes = SHARED if route in SHARED else (route,)
    queues = [name for each in routes for name in queue_names(each)]
    return Queue(
        suspects_name(route),
        bindings=[_died("delivery_limit", **{"x-first-death-queue": queue}) for queue in queues],
        queue_arguments={
            "x-queue-type": "quorum",
            "x-expires": 24 * IDLE,
            "x-delivery-limit": 0,
            "x-max-length": MAX_LENGTH["bulk"],
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTER_QUEUE,
        },
    )


def dead_letter_queue() -> Queue:
    """Where rejected messages, and suspects whose last delivery failed too, wait for a look; not those that expired."""
    return Queue(
        DEAD_LETTER_QUEUE,
        bindings=[_died("rejected")],
        queue_arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 2**31 - 1,  # every look is a delivery; RabbitMQ 4 allows 20 unless told otherwise
            "x-max-length": 10_000,
            "x-message-ttl": 7 * 24 * 3600 * 1000,  # they hold people's texts
        },
    )


def _died(reason: str, **headers: str) -> Any:
    """A binding for messages that died so, of which RabbitMQ's headers tell."""
    arguments = {"x-match": "all-with-x", "x-first-death-reason": reason, **headers}
    return binding(Exchange(DEAD_LETTERS, "headers"), arguments=arguments)
