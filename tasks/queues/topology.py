"""The queues: their lengths, what a full queue does, and where messages go that kill workers.

A queue cannot be declared again with other arguments, so a change of the arguments needs a new name.
"""

from __future__ import annotations

from typing import Any, get_args

from kombu import Exchange, Queue, binding

from tasks.contract.names import (
    DEAD_LETTERS,
    DELIVERIES,
    EXCHANGE,
    JOB_CHUNK,
    JOB_RESULTS,
    SHARED,
    Priority,
    queue_name,
    queue_names,
    suspects_name,
)

DEAD_LETTER_QUEUE = f"{DEAD_LETTERS}.kept"  # the queue of the dead letters
IDLE = 3600 * 1000  # milliseconds without consumer and declaration after which the broker deletes a queue
MAX_LENGTH: dict[Priority, int] = {"interactive": 1_000, "bulk": 10_000}


def translation_queue(route: str, priority: Priority) -> Queue:
    """The queue of a route for a priority."""
    name = queue_name(route, priority)
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-expires": IDLE,
        # One more delivery than this may fail; then the message goes to the suspects' queue for its last delivery.
        "x-delivery-limit": DELIVERIES - 2,
        "x-max-length": MAX_LENGTH[priority],
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": DEAD_LETTERS,
    }
    return Queue(name, Exchange(EXCHANGE, "direct"), routing_key=name, queue_arguments=arguments)


def translation_queues(route: str) -> list[Queue]:
    """The queues of a route: interactive, then bulk."""
    return [translation_queue(route, priority) for priority in get_args(Priority)]


def suspects_queue(route: str) -> Queue:
    """The queue of requests that failed two deliveries: one for each warm model, one for all models on demand.

    After two failed deliveries a request is retried alone. A request that kills its worker's process also fails the
    deliveries of the other requests in that process; if they were retried together, they would all become dead
    letters. No request expires in this queue: RabbitMQ removes the expiration when it dead-letters a message.
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
    """The queue of dead letters, which an operator inspects: rejected messages, and suspects that failed again.

    Expired messages do not go there.
    """
    return Queue(
        DEAD_LETTER_QUEUE,
        bindings=[_died("rejected")],
        queue_arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 2**31 - 1,  # each inspection counts as a delivery; RabbitMQ 4's default is 20
            "x-max-length": 10_000,
            "x-message-ttl": 7 * 24 * 3600 * 1000,  # seven days in milliseconds: dead letters hold people's texts
        },
    )


def job_results_queue() -> Queue:
    """The queue of the replies to chunks of jobs, and of the chunks that expired before any worker took them."""
    return Queue(
        JOB_RESULTS,
        Exchange(""),
        routing_key=JOB_RESULTS,
        bindings=[_died("expired", **{JOB_CHUNK: "1"})],
        queue_arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 2**31 - 1,  # RabbitMQ 4's default is 20: a result must outlast any failure
        },
    )


def _died(reason: str, **headers: str) -> Any:
    """A binding for dead-lettered messages by the headers that RabbitMQ adds: the reason, and `headers`."""
    arguments = {"x-match": "all-with-x", "x-first-death-reason": reason, **headers}
    return binding(Exchange(DEAD_LETTERS, "headers"), arguments=arguments)
