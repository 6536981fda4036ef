"""The models that a worker loads before it takes work, and how it lets go of them; what it can be told and asked."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any, NoReturn

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker.control import control_command, inspect_command
from celery.worker.state import active_requests, revoked

from models.errors import ModelError
from tasks import memory
from tasks.celery import app
from tasks.contract import STATUS, LoadedModel, WorkerStatus, queue_name
from tasks.gpu import Gpu, pin
from tasks.registry import Model

if TYPE_CHECKING:
    from models.local import LocalTranslator

GRACE = 10.0  # seconds to finish what is in flight when the worker is told to stop; the rest is handed back

logger = get_logger(__name__)


class Engines(bootsteps.StartStopStep):
    """Loads and warms the models whose queues this worker consumes; a failure ends the worker with exit code 1."""

    # Started after the pool and so stopped before it, and the pool then waits only for tasks that are being answered.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, gpu: Gpu | None = None, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.gpu = gpu
        self.loaded: dict[str, LocalTranslator] = {}

    def start(self, worker: Any) -> None:
        consumed = worker.app.amqp.queues.consume_from
        wanted = [
            model
            for model in worker.app.conf.tolk_models.current().models.values()
            if consumed.keys() & {queue_name(model.route, "interactive"), queue_name(model.route, "bulk")}
        ]
        device = pin(self.gpu)
        for model in wanted:
            logger.info("loading %s on %s", model.name, device)
            try:
                self.load(model, device)
            except ModelError as error:
                refuse(f"model {model.name} ({model.reference}) cannot be used on {device}: {error}")
        worker.app.engines = self.loaded
        # What is loaded stays: looking through all of it for garbage would stop every lane for 0.1 to 0.2 s.
        gc.collect()
        gc.freeze()

    def load(self, model: Model, device: str) -> None:
        """Loads a model and warms it up."""
        # Torch comes with these, and only after `pin`.
        from models.decoding import Options
        from models.local import LocalTranslator

        app.decoding = Options
        engine = self.loaded[model.name] = LocalTranslator.load(
            model.reference,
            device=device,
            precision=app.conf.tolk_precision,
            target_tokens={pair.target: pair.token for pair in model.pairs if pair.token is not None},
            decoding=Options(beam=model.decoding.beam, length_penalty=model.decoding.length_penalty),
        )
        engine.warm_up()
        logger.info("%s computes in %s", model.name, engine.precision)

    def stop(self, _worker: Any) -> None:
        self.close_all(GRACE)

    def terminate(self, _worker: Any) -> None:
        self.close_all(0)

    def close_all(self, grace: float) -> None:
        """Finishes what is in flight within `grace` seconds for all models together."""
        until = time.monotonic() + grace
        for engine in self.loaded.values():
            engine.close(grace=max(0.0, until - time.monotonic()))


@control_command(args=[("task_id", str)], signature="<task_id>")
def cancel(_state: Any, task_id: str) -> dict[str, int]:
    """Stops a task, begun or not: `revoke` alone cannot stop a thread."""
    revoked.add(task_id)
    return {"ok": sum(engine.cancel(task_id) for engine in app.engines.values())}


@inspect_command(name=STATUS)
def status(state: Any) -> dict[str, Any]:
    """What `/status` shows of this worker."""
    celery = state.consumer.controller.info()
    active = len(active_requests)
    return WorkerStatus(
        models=tuple(LoadedModel(name, engine.version, engine.device) for name, engine in app.engines.items()),
        active=active,
        processed=sum(celery["total"].values()) - active,
        uptime=celery["uptime"],
        memory=memory.resident(),
        gpu_memory=memory.on_gpu(),
    ).encode()


def refuse(reason: str) -> NoReturn:
    """Ends the worker with exit code 1 and the reason as the last word of its log."""
    logger.critical("The worker does not start: %s.", reason)
    raise SystemExit(1)
