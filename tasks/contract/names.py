"""Names and limits that the web tier and the workers share: the task, queues, routes, headers, size of a message.

A route is what the queues of a model are named after: the model's own name if it is warm, one of SHARED if it is loaded
on demand.
"""

from __future__ import annotations

import re
from typing import Literal, get_args
from zlib import crc32

TASK = "tolk.translate"
EXCHANGE = "tolk.translate"
DEAD_LETTERS = "tolk.dead-letters"  # the exchange; the queue behind it is `tolk.dead-letters.kept`
JOB_RESULTS = "tolk.jobs.results"  # the queue of the replies to the chunks of jobs
JOB_CHUNK = "tolk-job-chunk"  # the header of a message that is a chunk of a job
DELIVERIES = 3  # deliveries of a message that may fail before it becomes a dead letter; in the last it is alone
STATUS_COMMAND = "tolk_status"  # the remote-control command that asks a worker for its WorkerStatus
PUBLISHED = "tolk-published"  # the message header with the time of publication, in Unix seconds
ON_DEMAND = "on-demand"  # the prefix of the shared routes, and the name of their one suspects' queue
SHARED = tuple(f"{ON_DEMAND}.{shard}" for shard in range(16))  # the routes that models on demand share
MESSAGE_BYTES = 4 * 2**20  # the largest message of a request; the web tier refuses a request that needs more
REQUEST_ID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")  # a UUID

TASK_ID = re.compile(r"[!-~]{1,255}")  # of a message or a request in it: what may stand in a line of a log

Priority = Literal["interactive", "bulk"]


def shared_route(model: str) -> str:
    """The route of a model on demand, one of SHARED.

    A model always has the same route, so that its requests go to the worker that already has it in memory.
    """
    return SHARED[crc32(model.encode()) % len(SHARED)]


def queue_name(route: str, priority: Priority) -> str:
    """The queue of a route: `tolk.translate.fr-en.interactive`, `tolk.translate.on-demand.7.bulk`."""
    return f"{EXCHANGE}.{route}.{priority}"


def queue_names(route: str) -> list[str]:
    """The queues of a route: interactive, then bulk."""
    return [queue_name(route, priority) for priority in get_args(Priority)]


def is_bulk(queue: str) -> bool:
    """Whether `queue` is the queue of a route for bulk work."""
    return queue.startswith(f"{EXCHANGE}.") and queue.endswith(".bulk")


def suspects_name(route: str) -> str:
    """The queue of requests that failed two deliveries: `tolk.suspects.fr-en`, or one for all models on demand."""
    return f"tolk.suspects.{route.partition('.')[0]}"


def suspects_of(queue: str) -> str:
    """The suspects' queue for the requests of the queue `tolk.translate.ROUTE.PRIORITY`."""
    return suspects_name(queue.removeprefix(f"{EXCHANGE}.").rpartition(".")[0])


def request_of(task_id: str) -> str:
    """The id of the request that a task was made for."""
    return task_id.partition(".")[0]
