"""The remote-control commands of a worker: cancel a task, report the worker's status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.worker.control import control_command, inspect_command
from celery.worker.state import active_requests, revoked

from tasks.contract.names import STATUS_COMMAND
from tasks.contract.worker import WorkerStatus
from tasks.host import memory
from tasks.worker.translate import answered

if TYPE_CHECKING:
    from tasks.worker.models import Models


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
