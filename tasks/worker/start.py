"""How a worker starts: pinned to its device, with its warm models in memory before it takes work."""

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
from tasks.worker.models import Models
from tasks.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from tasks.worker.loader import Loader

GRACE = 10.0  # seconds to finish what is in flight when the worker is told to stop; the rest is handed back

logger = get_logger(__name__)


class LoadModels(bootsteps.StartStopStep):
    """Loads and warms the warm models whose queues this worker consumes; a failure ends the worker with exit code 1."""

    # Started after the pool and so stopped before it, and the pool then waits only for tasks that are being answered.
    # After the metrics, which tell of the start, and of a port that is taken before anything is loaded.
    requires = ("celery.worker.components:Pool", "tasks.worker.metrics:ServeMetrics")

    def __init__(self, worker: Any, gpu: Gpu | None = None, siblings: int = 1, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.gpu, self.siblings = gpu, siblings

    def start(self, worker: Any) -> None:
        tell_of_models()
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
        # What is loaded stays: looking through all of it for garbage would stop every lane for 0.1 to 0.2 s.
        gc.collect()
        gc.freeze()
        watchdog.look()

    def loader(self, conf: Any, device: str) -> Loader:
        from models.store.store import Store
        from tasks.worker.loader import Loader  # torch comes with it: after `pin`, and not at the first request

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
    """Lets the log say what is fetched, loaded and followed, too, where it says warnings: that is seldom, and takes
    long."""
    if logging.getLogger().level <= logging.WARNING:
        for name in ("models", "tasks.registry", "tasks.worker.loader", "tasks.worker.models"):
            logging.getLogger(name).setLevel(logging.INFO)


def refuse(reason: str) -> NoReturn:
    """Ends the worker with exit code 1 and the reason as the last word of its log."""
    logger.critical("The worker does not start: %s.", reason.rstrip("."))
    raise SystemExit(1)
