"""Loads the models of registry entries into memory.

This module imports torch, so a worker must not import it before it is pinned to its device.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from celery.utils.log import get_logger

from models.engine.options import DecodingOptions
from models.loading.footprint import footprint
from models.local import LocalTranslator
from models.store.diskcache import Held
from models.store.store import Store
from tasks.registry.entry import Entry

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Loader:
    """Fetches models with `store` and loads them on `device`, in `precision` unless an entry names another.

    `find`, `fetch`, `estimate` and `load` may take long, and raise ModelError.
    """

    store: Store
    device: str
    precision: str

    def find(self, entry: Entry) -> Held | str:
        """The model on this machine's disk, or the host to fetch it from."""
        return self.store.find(entry.reference, entry.checksum)

    def fetch(self, entry: Entry, wanted: Callable[[], bool]) -> Held:
        """Brings the model to this machine's disk; gives up when `wanted` says that nobody waits for it."""
        return self.store.fetch(entry.reference, entry.checksum, wanted)

    def estimate(self, entry: Entry, held: Held) -> int:
        """The bytes of memory that the model will take."""
        return footprint(held.directory, device=self.device, precision=entry.precision or self.precision)

    def load(self, entry: Entry, held: Held) -> LocalTranslator:
        """Loads a fetched model and warms it up."""
        logger.info("loading %s on %s", entry.name, self.device)
        with ExitStack() as failing:
            translator = LocalTranslator.load(
                entry.reference,
                held=held,
                device=self.device,
                precision=entry.precision or self.precision,
                target_tokens=entry.target_tokens,
                targets=[pair.target for pair in entry.pairs if pair.token is None],
                decoding=_decoding(entry),
            )
            failing.callback(translator.close)
            translator.warm_up(entry.example)
            failing.pop_all()
        logger.info("%s computes in %s", entry.name, translator.precision)
        return translator


def _decoding(entry: Entry) -> DecodingOptions | None:
    """The options that warm the model up, if models.toml says its beam; if not, they are the model's own."""
    said = entry.decoding
    return None if "beam" in said.unset else DecodingOptions(beam=said.beam)
