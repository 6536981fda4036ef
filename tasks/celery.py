"""The Celery application of the workers: `celery -A tasks worker`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from celery import Celery

from tasks import gpu, pool


class Engine(Protocol):
    """What the task asks of a model: `models.local.LocalTranslator` and its `Translated`, without importing them."""

    @property
    def version(self) -> str: ...

    @property
    def device(self) -> str: ...

    def translate(
        self,
        texts: Sequence[str],
        *,
        source: str | None,
        target: str | None,
        options: Any,
        deadline: float,
        priority: str,
        group: str | None,
        unwanted: Callable[[], bool],
    ) -> Any: ...

    def cancel(self, group: str) -> int: ...

    def stalled(self) -> float: ...

    def close(self, grace: float = 0.0) -> None: ...


class Tolk(Celery):
    """A Celery application with the models that its worker loaded, by name, and the type of their decoding options."""

    engines: Mapping[str, Engine]
    decoding: Callable[..., Any]


app = Tolk("tolk")
app.config_from_object("celeryconfig")
app.engines = {}
app.user_options["worker"] |= {gpu.OPTION, pool.SUPERVISOR}
app.steps["worker"].add("tasks.worker:Engines")  # a name, so that only a worker imports it
app.steps["worker"] |= {"tasks.watchdog:Watchdog", "tasks.pool:Supervision"}
app.steps["consumer"] |= {"tasks.consumer:DeadLetters", "tasks.consumer:Suspects"}
