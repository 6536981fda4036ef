"""The models that a worker serves, in memory before it takes work or on demand; what it can be told and asked."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker.control import control_command, inspect_command
from celery.worker.state import active_requests, revoked

from models.engine.stats import EngineStats
from models.errors import DeadlineExceeded, ModelError, Overloaded, UnknownModel
from models.loading.instance import Fetched, Loadable
from models.loading.loaded import LoadedModels, LoadedStats
from tasks.celery import Engine, app
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import STATUS_COMMAND
from tasks.contract.worker import LoadedModel, WorkerStatus
from tasks.host import memory
from tasks.host.gpu import Gpu, pin
from tasks.registry.entry import Entry
from tasks.registry.file import RegistryFile
from tasks.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from models.local import LocalTranslator
    from models.store.diskcache import Held
    from models.store.store import Store

GRACE = 10.0  # seconds to finish what is in flight when the worker is told to stop; the rest is handed back
RETRY = 60.0  # seconds until a model that could not be loaded for what it is now is tried again
AT_ONCE = 4  # models are brought up to date

logger = get_logger(__name__)


class Servable(Engine, Loadable, Protocol):
    """A model in memory that translates, such as models.local.LocalTranslator."""


F = TypeVar("F", bound=Fetched)


class Loader(Protocol[F]):
    """How an entry of the registry becomes a model in memory. Each of these may take long, and raises ModelError."""

    def fetch(self, model: Entry, /) -> F: ...

    def estimate(self, model: Entry, fetched: F, /) -> int:
        """Bytes that it will take."""

    def load(self, model: Entry, fetched: F, /) -> Servable: ...


class Engines(bootsteps.StartStopStep):
    """Loads and warms the warm models whose queues this worker consumes; a failure ends the worker with exit code 1."""

    # Started after the pool and so stopped before it, and the pool then waits only for tasks that are being answered.
    # After the metrics, which tell of the start, and of a port that is taken before anything is loaded.
    requires = ("celery.worker.components:Pool", "tasks.worker.metrics:Metrics")

    def __init__(self, worker: Any, gpu: Gpu | None = None, siblings: int = 1, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.gpu, self.siblings = gpu, siblings

    def start(self, worker: Any) -> None:
        tell_of_models()
        conf, queues = worker.app.conf, worker.app.amqp.queues
        device = pin(self.gpu)
        loader = self.loader(conf, device)
        budget = conf.tolk_memory or memory.for_models(self.siblings)
        app.engines = models = Models(conf.tolk_models, loader, budget, waiting=max(1, worker.concurrency // 2))
        app.watchdog = watchdog = Watchdog(models, conf.tolk_step_timeout)
        watchdog.start()
        offered = conf.tolk_models.current().models.values()
        for model in [each for each in offered if each.warm and queues.of(each.route)]:
            try:
                models.keep(model)
            except ModelError as error:
                refuse(f"model {model.name} ({model.reference}) cannot be used on {device}: {error}")
        # What is loaded stays: looking through all of it for garbage would stop every lane for 0.1 to 0.2 s.
        gc.collect()
        gc.freeze()
        watchdog.look()

    def loader(self, conf: Any, device: str) -> Loader[Any]:
        from models.store.store import Store

        try:
            store = Store(conf.tolk_model_cache, budget=conf.tolk_model_cache_bytes, hosts=conf.tolk_model_hosts)
        except ModelError as error:
            refuse(str(error))
        # Torch comes with these: after `pin`, and not at the first request, for it takes its time.
        from models.engine.options import DecodingOptions
        from models.local import LocalTranslator

        app.decoding = DecodingOptions
        return Local(LocalTranslator, store, device, conf.tolk_precision)

    def stop(self, _worker: Any) -> None:
        app.engines.close(GRACE)

    def terminate(self, _worker: Any) -> None:
        app.engines.close()


@dataclass(frozen=True, slots=True)
class Local:
    """Loads what `store` has fetched, on a device, in `precision` unless the model says another."""

    translator: type[LocalTranslator]
    store: Store
    device: str
    precision: str

    def fetch(self, model: Entry) -> Held:
        return self.store.fetch(model.reference, model.checksum)

    def estimate(self, model: Entry, held: Held) -> int:
        from models.loading.footprint import footprint

        return footprint(held.directory, device=self.device, precision=model.precision or self.precision)

    def load(self, model: Entry, held: Held) -> LocalTranslator:
        """Loads a model and warms it up."""
        logger.info("loading %s on %s", model.name, self.device)
        with ExitStack() as failing:
            translator = self.translator.load(
                model.reference,
                held=held,
                device=self.device,
                precision=model.precision or self.precision,
                target_tokens=_target_tokens(model),
                decoding=app.decoding(beam=model.decoding.beam, length_penalty=model.decoding.length_penalty),
            )
            failing.callback(translator.close)
            translator.warm_up(model.example)
            failing.pop_all()
        logger.info("%s computes in %s", model.name, translator.precision)
        return translator


@dataclass(frozen=True, slots=True)
class _Source(Generic[F]):
    """What a model in memory is made of."""

    model: Entry
    fetched: F

    def release(self) -> None:
        self.fetched.release()


class Models(Generic[F]):
    """The models of a registry that a worker has in memory, and loads on demand. Thread-safe."""

    def __init__(self, registry: RegistryFile, loader: Loader[F], budget: int, waiting: int) -> None:
        """`budget` of bytes; so many callers may wait for models at once."""
        self.warm: frozenset[str] = frozenset()
        self._registry, self._loader = registry, loader
        self._lock = threading.Lock()  # guards `warm` and what follows
        self._made: dict[str, Entry] = {}  # what each was made of that is in memory, and others that were
        self._updating: set[str] = set()
        self._failed: dict[str, tuple[Entry, float]] = {}  # and when it is tried again
        self._loading: tuple[str, float] | None = None  # and since when
        self._memory = LoadedModels(self._fetch, self._load, budget, estimate=self._estimate, waiting=waiting)

    @contextmanager
    def use(self, name: str, deadline: float) -> Iterator[Servable]:
        """A model, when it is in memory; it stays there inside of the `with`.

        Raises TolkError, at `deadline` (a time.monotonic()) at the latest: UNKNOWN_MODEL, which says what there is,
        OVERLOADED where no more may wait, or UNAVAILABLE; and DeadlineExceeded.
        """
        self._check(name)
        with ExitStack() as stack:
            try:
                model = stack.enter_context(self._memory.use(name, deadline))
            except Overloaded as error:
                stats = self._memory.stats()
                retry_after = 1.0 + stats.loading / max(1, stats.loads)
                raise TolkError(Code.OVERLOADED, str(error), retry_after) from error
            except DeadlineExceeded:
                raise
            except ModelError as error:  # whatever is wrong with its files is not for the caller
                message = f"Model {name!r} cannot be used at the moment. Its worker's log says why."
                raise TolkError(Code.UNAVAILABLE, message, 1.0) from error
            yield model

    def keep(self, model: Entry) -> None:
        """Has a model in memory for what it is now, to stay. Raises ModelError: what was there of it is there still."""
        self._memory.keep(model.name)
        if self._is_outdated(model):
            self._memory.refresh(model.name)
        with self._lock:
            self.warm |= {model.name}

    def follow(self, warm: Collection[str]) -> None:
        """Begins to make memory what the registry says now: `warm` models are there to stay, and no others. Those that
        changed are loaded anew; what cannot be is tried again in a while, or when it changes. Returns at once."""
        registry = self._registry.current().models
        present = {model.name for model in self._memory.loaded()}
        gone = {name for name in self.warm if name not in warm} | {name for name in present if name not in registry}
        for name in gone.difference(warm):
            with self._lock:
                self.warm -= {name}
            self._memory.drop(name)
        for model in [registry[name] for name in {*warm, *present - gone} if name in registry]:
            is_wanted = model.name in warm
            if (is_wanted and model.name not in self.warm) or self._is_outdated(model):
                self._update(model, self.keep if is_wanted else self._refresh)

    def loaded(self) -> tuple[LoadedModel, ...]:
        return tuple(
            LoadedModel(each.name, each.version, each.device, each.bytes, each.name in self.warm)
            for each in self._memory.loaded()
        )

    def loading(self) -> tuple[str, float] | None:
        """What is being loaded, and since how many seconds."""
        return None if (loading := self._loading) is None else (loading[0], time.monotonic() - loading[1])

    def stalled(self) -> Iterator[tuple[str, float]]:
        """Of each model in memory, the seconds that it has been busy with one step."""
        return self._memory.stalled()

    def stats(self) -> LoadedStats:
        return self._memory.stats()

    def engines(self) -> dict[str, EngineStats]:
        return self._memory.work_done()

    def cancel(self, group: str) -> int:
        """Ends what waits or runs under `group`; says how many sentences that were."""
        return self._memory.cancel(group)

    def close(self, grace: float = 0.0) -> None:
        """Finishes what is in flight within `grace` seconds for all models together."""
        self._memory.close(grace)

    def _check(self, name: str) -> None:
        if name in self.warm or name in self._registry.current().models:
            return
        registry = self._registry.latest()
        if name not in registry.models:
            raise registry.unknown(name)

    def _is_outdated(self, model: Entry) -> bool:
        made = self._made.get(model.name)
        return made is not None and _recipe(made) != _recipe(model)

    def _refresh(self, model: Entry) -> None:
        self._memory.refresh(model.name)

    def _update(self, model: Entry, how: Callable[[Entry], None]) -> None:
        failed, until = self._failed.get(model.name, (None, 0.0))
        if failed == model and time.monotonic() < until:
            return
        with self._lock:
            if model.name in self._updating or len(self._updating) >= AT_ONCE:
                return
            self._updating.add(model.name)
        threading.Thread(target=self._try, args=(model, how), name=f"update-{model.name}", daemon=True).start()

    def _try(self, model: Entry, how: Callable[[Entry], None]) -> None:
        try:
            how(model)
            self._failed.pop(model.name, None)
        except ModelError as error:
            logger.error("%s stays as it is, and is tried again in %.0f s: %s", model.name, RETRY, error)
            self._failed[model.name] = model, time.monotonic() + RETRY
        finally:
            with self._lock:
                self._updating.discard(model.name)

    # For LoadedModels, in its threads.

    def _fetch(self, name: str) -> _Source[F]:
        model = self._registry.current().models.get(name)
        if model is None:
            raise UnknownModel(f"There is no model {name!r} any more.")
        return _Source(model, self._loader.fetch(model))

    def _estimate(self, _name: str, source: _Source[F]) -> int:
        return self._loader.estimate(source.model, source.fetched)

    def _load(self, name: str, source: _Source[F]) -> Servable:
        self._loading = name, time.monotonic()
        try:
            model = self._loader.load(source.model, source.fetched)
        finally:
            self._loading = None
        self._made[name] = source.model
        return model


def _recipe(model: Entry) -> object:
    """What makes another model in memory of an entry where it differs."""
    return model.reference, model.checksum, model.precision, model.decoding, _target_tokens(model)


def _target_tokens(model: Entry) -> dict[str, str]:
    return {pair.target: pair.token for pair in model.pairs if pair.token is not None}


@control_command(args=[("task_id", str)], signature="<task_id>")
def cancel(_state: Any, task_id: str) -> dict[str, int]:
    """Stops a task, begun or not: `revoke` alone cannot stop a thread."""
    revoked.add(task_id)
    return {"ok": app.engines.cancel(task_id)}


@inspect_command(name=STATUS_COMMAND)
def status(state: Any) -> dict[str, Any]:
    """What `/status` shows of this worker."""
    celery = state.consumer.controller.info()
    active = len(active_requests)
    models = app.engines
    stats = models.stats()
    return WorkerStatus(
        models=models.loaded(),
        active=active,
        processed=sum(celery["total"].values()) - active,
        uptime=celery["uptime"],
        hits=stats.hits,
        loads=stats.loads,
        evictions=stats.evictions,
        memory=memory.resident(),
        gpu_memory=memory.on_gpu(),
    ).encode()


def tell_of_models() -> None:
    """Lets the log say what is fetched, loaded and followed, too, where it says warnings: that is seldom, and takes
    long."""
    if logging.getLogger().level <= logging.WARNING:
        for name in ("models", "tasks.registry", __name__):
            logging.getLogger(name).setLevel(logging.INFO)


def refuse(reason: str) -> NoReturn:
    """Ends the worker with exit code 1 and the reason as the last word of its log."""
    logger.critical("The worker does not start: %s.", reason.rstrip("."))
    raise SystemExit(1)
