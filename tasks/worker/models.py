"""The models of the registry that a worker has in memory: warm models, and models that are loaded on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from models.engine.options import DecodingOptions
from models.errors import DeadlineExceeded, ModelError, Overloaded, UnknownModel
from models.loading.loaded import LoadedModels
from models.translation.call import Call
from tasks.contract.errors import Code, TolkError
from tasks.contract.request import Lines
from tasks.contract.worker import FailedModel, LoadedModel
from tasks.registry.entry import Entry
from tasks.registry.file import RegistryFile
from tasks.serving import Asked
from text.holds import Profile

if TYPE_CHECKING:  # these modules import torch
    from models.local import LocalTranslator
    from models.store.diskcache import Held
    from models.translation.results import Translated
    from tasks.worker.loader import Loader

RETRY = 60.0  # seconds after which loading is tried again if it failed, unless the entry changes before
AT_ONCE = 4  # the largest number of models that are updated at the same time

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A translator in memory, as the TranslatingModel that the task uses."""

    translator: LocalTranslator

    @property
    def version(self) -> str:
        return self.translator.version

    def translate(self, asked: Mapping[str, Asked]) -> Iterator[tuple[str, Translated | Exception]]:
        own = self.translator.decoding
        return self.translator.translate_each({task_id: _call(task_id, each, own) for task_id, each in asked.items()})


@dataclass(frozen=True, slots=True)
class _Source:
    """The entry and the fetched files that a model in memory is loaded from."""

    entry: Entry
    fetched: Held

    def release(self) -> None:
        self.fetched.release()


class Models:
    """The models of a registry that a worker has in memory or loads on demand. Thread-safe.

    `memory` holds them; callers use it directly for statistics, to cancel a task, and to close all models.
    """

    def __init__(self, registry: RegistryFile, loader: Loader, budget: int, waiting: int) -> None:
        """The models may take `budget` bytes. At most `waiting` callers may wait for a model at the same time."""
        self.warm: frozenset[str] = frozenset()
        self._registry, self._loader = registry, loader
        self._lock = threading.Lock()  # guards `warm` and `_updating`
        self._made: dict[str, Entry] = {}  # the entry that each model was last loaded from, by name
        self._updating: set[str] = set()
        self._failed: dict[str, tuple[Entry, float]] = {}  # the entry that failed, and when to try it again
        self._reasons: dict[str, str] = {}  # why models could not be loaded, by name, until they can
        self._loading: tuple[str, float] | None = None  # the name of the model that is being loaded, and its start
        self.memory = LoadedModels(
            self._find, self._fetch, self._load, budget, estimate=self._estimate, waiting=waiting
        )

    @contextmanager
    def use(self, name: str, deadline: float) -> Iterator[ServedModel]:
        """The model `name`, which stays in memory until the `with` ends.

        Loads the model if necessary, and waits for it at most until `deadline` (a time.monotonic()); then raises
        DeadlineExceeded. Raises TolkError: UNKNOWN_MODEL, which names alternatives; OVERLOADED if too many callers
        wait; UNAVAILABLE if the model cannot be loaded.
        """
        self._check(name)
        with ExitStack() as stack:
            try:
                model = stack.enter_context(self.memory.use(name, deadline))
            except Overloaded as error:
                stats = self.memory.stats()
                retry_after = 1.0 + stats.loading / max(1, stats.loads)
                raise TolkError(Code.OVERLOADED, str(error), retry_after) from error
            except DeadlineExceeded:
                raise
            except ModelError as error:  # the caller need not know what is wrong with the model's files
                message = f"Model {name!r} cannot be used at the moment. Its worker's log says why."
                raise TolkError(Code.UNAVAILABLE, message, 1.0) from error
            yield ServedModel(model)

    def keep(self, entry: Entry) -> None:
        """Loads a model to stay in memory, again if its entry has changed.

        Raises ModelError if that fails; a version that was in memory before then stays.
        """
        self.memory.keep(entry.name)
        if self._is_outdated(entry):
            self.memory.refresh(entry.name)
        with self._lock:
            self.warm |= {entry.name}

    def follow(self, warm: Collection[str]) -> None:
        """Begins to update the models in memory to the registry, in other threads. Returns at once.

        The models named by `warm` are loaded to stay, and no others are. Models that left the registry are removed;
        models whose entry changed are loaded again. A failed load is tried again after RETRY seconds, or earlier if the
        entry changes.
        """
        registry = self._registry.current().models
        present = {model.name for model in self.memory.loaded()}
        gone = {name for name in self.warm if name not in warm} | {name for name in present if name not in registry}
        for name in gone.difference(warm):
            with self._lock:
                self.warm -= {name}
            self.memory.drop(name)
        for entry in [registry[name] for name in {*warm, *present - gone} if name in registry]:
            is_wanted = entry.name in warm
            if (is_wanted and entry.name not in self.warm) or self._is_outdated(entry):
                self._update(entry, self.keep if is_wanted else self._refresh)

    def loaded(self) -> tuple[LoadedModel, ...]:
        return tuple(
            LoadedModel(each.name, each.version, each.device, each.bytes, each.name in self.warm)
            for each in self.memory.loaded()
        )

    def failed(self) -> tuple[FailedModel, ...]:
        """The models on offer that could not be fetched or loaded when that was last tried."""
        offered = self._registry.current().models
        return tuple(FailedModel(name, reason) for name, reason in list(self._reasons.items()) if name in offered)

    def loading(self) -> tuple[str, float] | None:
        """The model that is being loaded, and the seconds since its loading began; None if there is none."""
        return None if (loading := self._loading) is None else (loading[0], time.monotonic() - loading[1])

    def _check(self, name: str) -> None:
        if name in self.warm or name in self._registry.current().models:
            return
        registry = self._registry.latest()
        if name not in registry.models:
            raise registry.unknown(name)

    def _is_outdated(self, entry: Entry) -> bool:
        made = self._made.get(entry.name)
        return made is not None and _recipe(made) != _recipe(entry)

    def _refresh(self, entry: Entry) -> None:
        self.memory.refresh(entry.name)

    def _update(self, entry: Entry, how: Callable[[Entry], None]) -> None:
        failed, until = self._failed.get(entry.name, (None, 0.0))
        if failed == entry and time.monotonic() < until:
            return
        with self._lock:
            if entry.name in self._updating or len(self._updating) >= AT_ONCE:
                return
            self._updating.add(entry.name)
        threading.Thread(target=self._try, args=(entry, how), name=f"update-{entry.name}", daemon=True).start()

    def _try(self, entry: Entry, how: Callable[[Entry], None]) -> None:
        try:
            how(entry)
            self._failed.pop(entry.name, None)
        except ModelError as error:
            logger.error("model %s is not updated, and is tried again in %.0f s: %s", entry.name, RETRY, error)
            self._failed[entry.name] = entry, time.monotonic() + RETRY
        finally:
            with self._lock:
                self._updating.discard(entry.name)

    # LoadedModels calls these in its own threads.

    def _find(self, name: str) -> _Source | str:
        entry = self._entry(name)
        with self._telling(name):
            found = self._loader.find(entry)
        return found if isinstance(found, str) else _Source(entry, found)

    def _fetch(self, name: str, wanted: Callable[[], bool]) -> _Source:
        entry = self._entry(name)
        with self._telling(name):
            return _Source(entry, self._loader.fetch(entry, wanted))

    def _entry(self, name: str) -> Entry:
        entry = self._registry.current().models.get(name)
        if entry is None:
            raise UnknownModel(f"There is no model {name!r} any more.")
        return entry

    def _estimate(self, _name: str, source: _Source) -> int:
        return self._loader.estimate(source.entry, source.fetched)

    def _load(self, name: str, source: _Source) -> LocalTranslator:
        self._loading = name, time.monotonic()
        try:
            with self._telling(name):
                model = self._loader.load(source.entry, source.fetched)
        finally:
            self._loading = None
        self._made[name] = source.entry
        self._reasons.pop(name, None)
        return model

    @contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        """Keeps the reason why a model cannot be fetched or loaded, for the operator."""
        try:
            yield
        except ModelError as error:
            self._reasons[name] = str(error)
            raise


def _recipe(entry: Entry) -> object:
    """The fields of an entry that the model in memory depends on: if one of them changes, it is loaded again."""
    return entry.reference, entry.checksum, entry.precision, entry.decoding, entry.target_tokens


def _call(task_id: str, asked: Asked, own: DecodingOptions) -> Call:
    """`own`: the model's own options, for those that nobody has chosen."""
    request, wanted = asked.request, asked.request.options
    beam = max(own.beam, wanted.nbest) if "beam" in wanted.unset else wanted.beam
    penalty = None if "length_penalty" in wanted.unset else wanted.length_penalty
    return Call(
        request.texts,
        source=request.source,
        target=request.target,
        options=DecodingOptions(beam=beam, nbest=wanted.nbest, length_penalty=penalty),
        deadline=asked.deadline,
        priority=request.priority,
        caller=request.caller or request.principal or "",
        group=task_id,
        unwanted=asked.unwanted,
        joined=request.lines is Lines.JOIN,
        profile=Profile(request.holds),
        preserve=request.preserve,
    )
