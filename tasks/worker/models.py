"""The models that a worker has in memory, as the registry says: warm ones, and others on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger

from models.engine.options import DecodingOptions
from models.errors import DeadlineExceeded, ModelError, Overloaded, UnknownModel
from models.loading.loaded import LoadedModels
from tasks.contract.errors import Code, TolkError
from tasks.contract.worker import LoadedModel
from tasks.registry.entry import Entry
from tasks.registry.file import RegistryFile

if TYPE_CHECKING:  # torch comes with these
    from models.local import LocalTranslator, Translated
    from models.store.diskcache import Held
    from tasks.worker.loader import Loader

RETRY = 60.0  # seconds until a model that could not be loaded for what it is now is tried again
AT_ONCE = 4  # models are brought up to date

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A TranslatingModel of a translator in memory."""

    translator: LocalTranslator

    @property
    def version(self) -> str:
        return self.translator.version

    def translate(
        self, texts: Sequence[str], *, beam: int, nbest: int, length_penalty: float, **others: Any
    ) -> Translated:
        options = DecodingOptions(beam=beam, nbest=nbest, length_penalty=length_penalty)
        return self.translator.translate(texts, options=options, **others)


@dataclass(frozen=True, slots=True)
class _Source:
    """What a model in memory is made of."""

    entry: Entry
    fetched: Held

    def release(self) -> None:
        self.fetched.release()


class Models:
    """The models of a registry that a worker has in memory, and loads on demand. Thread-safe.

    Whoever asks about all that is in `memory`, or ends it, asks that.
    """

    def __init__(self, registry: RegistryFile, loader: Loader, budget: int, waiting: int) -> None:
        """`budget` of bytes; so many callers may wait for models at once."""
        self.warm: frozenset[str] = frozenset()
        self._registry, self._loader = registry, loader
        self._lock = threading.Lock()  # guards `warm` and what follows
        self._made: dict[str, Entry] = {}  # what each was made of that is in memory, and others that were
        self._updating: set[str] = set()
        self._failed: dict[str, tuple[Entry, float]] = {}  # and when it is tried again
        self._loading: tuple[str, float] | None = None  # and since when
        self.memory = LoadedModels(self._fetch, self._load, budget, estimate=self._estimate, waiting=waiting)

    @contextmanager
    def use(self, name: str, deadline: float) -> Iterator[ServedModel]:
        """A model, when it is in memory; it stays there inside of the `with`.

        Raises TolkError, at `deadline` (a time.monotonic()) at the latest: UNKNOWN_MODEL, which says what there is,
        OVERLOADED where no more may wait, or UNAVAILABLE; and DeadlineExceeded.
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
            except ModelError as error:  # whatever is wrong with its files is not for the caller
                message = f"Model {name!r} cannot be used at the moment. Its worker's log says why."
                raise TolkError(Code.UNAVAILABLE, message, 1.0) from error
            yield ServedModel(model)

    def keep(self, entry: Entry) -> None:
        """Has a model in memory for what it is now, to stay. Raises ModelError: what was there of it is there still."""
        self.memory.keep(entry.name)
        if self._is_outdated(entry):
            self.memory.refresh(entry.name)
        with self._lock:
            self.warm |= {entry.name}

    def follow(self, warm: Collection[str]) -> None:
        """Begins to make memory what the registry says now: `warm` models are there to stay, and no others. Those that
        changed are loaded anew; what cannot be is tried again in a while, or when it changes. Returns at once."""
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

    def loading(self) -> tuple[str, float] | None:
        """What is being loaded, and since how many seconds."""
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
            logger.error("%s stays as it is, and is tried again in %.0f s: %s", entry.name, RETRY, error)
            self._failed[entry.name] = entry, time.monotonic() + RETRY
        finally:
            with self._lock:
                self._updating.discard(entry.name)

    # For LoadedModels, in its threads.

    def _fetch(self, name: str) -> _Source:
        entry = self._registry.current().models.get(name)
        if entry is None:
            raise UnknownModel(f"There is no model {name!r} any more.")
        return _Source(entry, self._loader.fetch(entry))

    def _estimate(self, _name: str, source: _Source) -> int:
        return self._loader.estimate(source.entry, source.fetched)

    def _load(self, name: str, source: _Source) -> LocalTranslator:
        self._loading = name, time.monotonic()
        try:
            model = self._loader.load(source.entry, source.fetched)
        finally:
            self._loading = None
        self._made[name] = source.entry
        return model


def _recipe(entry: Entry) -> object:
    """What makes another model in memory of an entry where it differs."""
    return entry.reference, entry.checksum, entry.precision, entry.decoding, entry.target_tokens
