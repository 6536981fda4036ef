"""The threads of a worker: pools of threads for its tasks, and the thread that sends their replies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from typing import Any

from celery.concurrency import thread
from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult  # type: ignore[attr-defined]  # missing in celery-types
from typing_extensions import override

from tasks.contract.names import is_bulk
from tasks.worker.publisher import Publisher
from tasks.worker.replies import Replies
from tasks.worker.request import hand_back, left


def part(threads: int) -> int:
    """An eighth of a worker's threads: so many messages at a time may keep only some of its work from going on."""
    return max(1, threads // 8)


class TaskPool(thread.TaskPool):
    """Celery's thread pool, except that each task runs in its own context: context variables end with the task.

    Bulk tasks have a few threads of their own, so that they never hold those of the others. The application's `replies`
    are open as long as the pool is.
    """

    app: Any  # this attribute and the next one are missing in celery-types
    executor: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bulk = ThreadPoolExecutor(part(self.limit))

    def on_start(self) -> None:
        self.app.replies = Replies(self.app)
        self.app.replies.start()

    @override
    def on_stop(self) -> None:
        """Waits for all tasks and their replies; then hands back what has none."""
        self.bulk.shutdown(cancel_futures=True)
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
        match args:
            case [_, _, {"delivery_info": {"routing_key": str() as queue}}, *_] if is_bulk(queue):
                executor = self.bulk
            case _:
                executor = self.executor
        run = copy_context().run
        return ApplyResult(executor.submit(run, apply_target, target, args, kwargs, callback, accept_callback))
