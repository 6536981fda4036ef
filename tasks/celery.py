"""The Celery application of the workers: `celery -A tasks worker`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from celery import Celery
from celery.signals import setup_logging, worker_init

from tasks import logs, options
from tasks.contract.names import Priority
from tasks.contract.worker import LoadedModel
from telemetry import tracing

if TYPE_CHECKING:
    from tasks.worker.watchdog import Watchdog


class Engine(Protocol):
    """What the task asks of a model: `models.local.LocalTranslator` and its `Translated`, without importing them."""

    @property
    def version(self) -> str: ...

    def translate(
        self,
        texts: Sequence[str],
        *,
        source: str | None,
        target: str | None,
        options: Any,
        deadline: float,
        priority: Priority,
        group: str | None,
        unwanted: Callable[[], bool],
    ) -> Any: ...


class Stats(Protocol):
    """`models.loading.loaded.LoadedStats`, what a worker tells of it."""

    @property
    def hits(self) -> int: ...

    @property
    def loads(self) -> int: ...

    @property
    def evictions(self) -> int: ...


class Engines(Protocol):
    """The models that a worker has in memory: `tasks.worker.models.Models`, which says more, without importing it."""

    @property
    def warm(self) -> frozenset[str]: ...

    def use(self, name: str, deadline: float) -> AbstractContextManager[Engine]: ...

    def follow(self, warm: Collection[str]) -> None: ...

    def loaded(self) -> tuple[LoadedModel, ...]: ...

    def loading(self) -> tuple[str, float] | None: ...

    def stalled(self) -> Iterator[tuple[str, float]]: ...

    def stats(self) -> Stats: ...

    def cancel(self, group: str) -> int: ...

    def close(self, grace: float = 0.0) -> None: ...


class Tolk(Celery):
    """A Celery application with the models that its worker loaded, who looks after them, and their decoding options'
    type."""

    amqp_cls = "tasks.worker.selection:AMQP"
    engines: Engines
    watchdog: Watchdog
    decoding: Callable[..., Any]


app = Tolk("tolk")
app.config_from_object("celeryconfig")
app.user_options["worker"] |= {options.GPU, options.METRICS, options.SIBLINGS, options.SUPERVISOR}


@setup_logging.connect(weak=False)
def set_up_log(loglevel: int | str, logfile: str | None, **_: Any) -> None:
    logs.set_up(app.conf, loglevel, logfile)


@worker_init.connect(weak=False)
def export_spans(**_: Any) -> None:
    if app.conf.tolk_export_spans:
        from opentelemetry.instrumentation.celery import CeleryInstrumentor

        tracing.start("tolk-worker")
        instrumentor: Any = CeleryInstrumentor
        instrumentor().instrument()


app.steps["worker"].add("tasks.worker.start:Engines")  # a name, so that only a worker imports it
app.steps["worker"].add("tasks.worker.supervision:Supervision")
app.steps["consumer"] |= {"tasks.worker.consumer:DeadLetters", "tasks.worker.subscriptions:Subscriptions"}
