"""The thread pool of a worker."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from celery.concurrency import thread
from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult  # type: ignore[attr-defined]  # missing in celery-types
from typing_extensions import override


class TaskPool(thread.TaskPool):
    """Celery's thread pool, except that each task runs in its own context: context variables end with the task."""

    executor: Any  # missing in celery-types

    @override
    def on_apply(
        self,
        target: Any,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: Any = None,
        accept_callback: Any = None,
        **_: Any,
    ) -> Any:
        run = copy_context().run
        return ApplyResult(self.executor.submit(run, apply_target, target, args, kwargs, callback, accept_callback))
