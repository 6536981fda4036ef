"""How an entry of the registry becomes a model in memory.

Torch comes with this module, so a worker imports it once it is pinned to its device.
"""

from __future__ import annotations

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
    """Loads what `store` has fetched, on a device, in `precision` unless the model says another.

    Each of the three may take long, and raises ModelError.
    """

    store: Store
    device: str
    precision: str

    def fetch(self, entry: Entry) -> Held:
        return self.store.fetch(entry.reference, entry.checksum)

    def estimate(self, entry: Entry, held: Held) -> int:
        """Bytes that it will take."""
        return footprint(held.directory, device=self.device, precision=entry.precision or self.precision)

    def load(self, entry: Entry, held: Held) -> LocalTranslator:
        """Loads a model and warms it up."""
        logger.info("loading %s on %s", entry.name, self.device)
        with ExitStack() as failing:
            translator = LocalTranslator.load(
                entry.reference,
                held=held,
                device=self.device,
                precision=entry.precision or self.precision,
                target_tokens=entry.target_tokens,
                decoding=DecodingOptions(beam=entry.decoding.beam, length_penalty=entry.decoding.length_penalty),
            )
            failing.callback(translator.close)
            translator.warm_up(entry.example)
            failing.pop_all()
        logger.info("%s computes in %s", entry.name, translator.precision)
        return translator
