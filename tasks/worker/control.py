"""The remote-control commands of a worker: cancel a task, report the worker's status, and what monitors ask for.

Celery's other commands could stop a model's work for good, as `rate_limit` and `cancel_consumer`, or end the worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger
from celery.worker.control import Panel, control_command, inspect_command
from celery.worker.state import active_requests, revoked

from tasks.contract.names import STATUS_COMMAND
from tasks.contract.worker import WorkerStatus
from tasks.host import memory
from tasks.worker.translate import answered

if TYPE_CHECKING:
    from tasks.worker.models import Models

# What Flower and `celery inspect` ask for, and what workers ask each other.
OF_CELERY = {
    "active",
    "active_queues",
    "clock",
    "conf",
    "enable_events",
    "heartbeat",
    "hello",
    "ping",
    "query_task",
    "registered",
    "reserved",
    "revoke",
    "revoked",
    "scheduled",
    "stats",
}

logger = get_logger(__name__)


def refuse_others() -> None:
    """Makes this worker refuse all commands but ours and those in OF_CELERY."""
    for name in set(Panel.data) - OF_CELERY - {"cancel", STATUS_COMMAND}:
        Panel.data[name] = refuse


def refuse(_state: Any, **_: Any) -> dict[str, str]:
    logger.warning("a remote-control command that Tolk does not use is refused")
    return {
        "error": "Tolk does not use this command. Set limits by keys, models in models.toml, and workers by signals."
    }


@control_command(args=[("task_id", str)], signature="<task_id>")
def cancel(state: Any, task_id: str) -> dict[str, int]:
    """Stops a task, whether it has begun or not; Celery's `revoke` cannot stop a task that runs in a thread."""
    revoked.add(task_id)
    models: Models = state.app.models
    return {"ok": models.memory.cancel(task_id)}


@inspect_command(name=STATUS_COMMAND)
def status(state: Any) -> dict[str, Any]:
    """Returns an encoded WorkerStatus, for the web tier's status page."""
    models: Models = state.app.models
    stats = models.memory.stats()
    return WorkerStatus(
        models=models.loaded(),
        active=sum(len(message.unanswered) for message in list(active_requests)),
        processed=answered(),
        uptime=state.consumer.controller.info()["uptime"],
        hits=stats.hits,
        loads=stats.loads,
        evictions=stats.evictions,
        memory=memory.resident(),
        gpu_memory=memory.on_gpu(),
        failed=models.failed(),
    ).encode()
