"""The start of a worker: it is pinned to its device and loads its warm models before it takes work."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING, Any, NoReturn

from celery import bootsteps
from celery.utils.log import get_logger

from models.errors import ModelError
from tasks.celery import app
from tasks.host import memory
from tasks.host.gpu import Gpu, pin
from tasks.worker import control
from tasks.worker.models import Models
from tasks.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from tasks.worker.loader import Loader

GRACE = 10.0  # seconds for requests in flight when the worker is told to stop; then it hands back the others

logger = get_logger(__name__)


class LoadModels(bootsteps.StartStopStep):
    """Loads and warms the warm models whose queues this worker consumes; a failure ends the worker with exit code 1."""

    # Celery stops the steps in reverse order. It starts this step after the thread pool, so the models are closed
    # before the pool is stopped, and the pool then waits only for tasks that send their replies. It starts this step
    # after the metrics, so that they show the start, and so that a port in use is found before a model is loaded.
    requires = ("celery.worker.components:Pool", "tasks.worker.metrics:ServeMetrics")

    def __init__(self, worker: Any, gpu: Gpu | None = None, siblings: int = 1, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.gpu, self.siblings = gpu, siblings

    def start(self, worker: Any) -> None:
        tell_of_models()
        control.refuse_others()
        conf, queues = worker.app.conf, worker.app.amqp.queues
        device = pin(self.gpu)
        loader = self.loader(conf, device)
        budget = conf.tolk_memory or memory.for_models(self.siblings)
        models = Models(conf.tolk_models, loader, budget, waiting=max(1, worker.concurrency // 2))
        app.models = self.models = models
        worker.watchdog = watchdog = Watchdog(models, conf.tolk_step_timeout)
        watchdog.start()
        offered = conf.tolk_models.current().models.values()
        for entry in [each for each in offered if each.warm and queues.of(each.route)]:
            try:
                models.keep(entry)
            except ModelError as error:
                refuse(f"model {entry.name} ({entry.reference}) cannot be used on {device}: {error}")
        # Loaded models stay. Searching all their objects for garbage would stop every engine for 0.1 to 0.2 s.
        gc.collect()
        gc.freeze()
        watchdog.look()

    def loader(self, conf: Any, device: str) -> Loader:
        from models.store.store import Store
        from tasks.worker.loader import Loader  # imports torch: not before `pin`, and not as late as the first request

        try:
            store = Store(conf.tolk_model_cache, budget=conf.tolk_model_cache_bytes, hosts=conf.tolk_model_hosts)
        except ModelError as error:
            refuse(str(error))
        return Loader(store, device, conf.tolk_precision)

    def stop(self, _worker: Any) -> None:
        self.models.memory.close(GRACE)

    def terminate(self, _worker: Any) -> None:
        self.models.memory.close()


def tell_of_models() -> None:
    """Logs the fetching, loading and updating of models even if the log's level is warning.

    These lines are rare, and tell the operator of steps that take long.
    """
    if logging.getLogger().level <= logging.WARNING:
        for name in ("models", "tasks.registry", "tasks.worker.loader", "tasks.worker.models"):
            logging.getLogger(name).setLevel(logging.INFO)


def refuse(reason: str) -> NoReturn:
    """Ends the worker with exit code 1, with `reason` in the last line of its log."""
    logger.critical("The worker does not start: %s.", reason.rstrip("."))
    raise SystemExit(1)
