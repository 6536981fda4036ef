"""The threads of a worker: a pool of threads for its tasks, and the thread that sends their replies."""

from __future__ import annotations

from contextlib import closing
from contextvars import copy_context
from typing import Any

from celery.concurrency import thread
from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult  # type: ignore[attr-defined]  # missing in celery-types
from typing_extensions import override

from tasks.worker.publisher import Publisher
from tasks.worker.replies import Replies
from tasks.worker.request import hand_back, left


class TaskPool(thread.TaskPool):
    """Celery's thread pool, except that each task runs in its own context: context variables end with the task.

    The application's `replies` are open as long as the pool is.
    """

    app: Any  # this attribute and the next one are missing in celery-types
    executor: Any

    def on_start(self) -> None:
        self.app.replies = Replies(self.app)
        self.app.replies.start()

    @override
    def on_stop(self) -> None:
        """Waits for all tasks and their replies; then hands back what has none."""
        super().on_stop()
        self.app.replies.close()
        with closing(Publisher(self.app)) as publisher:
            hand_back(left(), publisher)

    def on_terminate(self) -> None:
        """Does as `on_stop`, which does not wait long: the models are closed."""
        self.on_stop()

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
