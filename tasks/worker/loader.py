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
from tasks.worker.models import target_tokens

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads what `store` has fetched, on a device, in `precision` unless the model says another.

    Each of the three may take long, and raises ModelError.
    """

    store: Store
    device: str
    precision: str

    def fetch(self, model: Entry) -> Held:
        return self.store.fetch(model.reference, model.checksum)

    def estimate(self, model: Entry, held: Held) -> int:
        """Bytes that it will take."""
        return footprint(held.directory, device=self.device, precision=model.precision or self.precision)

    def load(self, model: Entry, held: Held) -> LocalTranslator:
        """Loads a model and warms it up."""
        logger.info("loading %s on %s", model.name, self.device)
        with ExitStack() as failing:
            translator = LocalTranslator.load(
                model.reference,
                held=held,
                device=self.device,
                precision=model.precision or self.precision,
                target_tokens=target_tokens(model),
                decoding=DecodingOptions(beam=model.decoding.beam, length_penalty=model.decoding.length_penalty),
            )
            failing.callback(translator.close)
            translator.warm_up(model.example)
            failing.pop_all()
        logger.info("%s computes in %s", model.name, translator.precision)
        return translator
