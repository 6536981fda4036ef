"""How an entry of the registry becomes a model in memory, warmed up."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from tasks.celery import app
from tasks.registry.entry import Entry
from tasks.worker.models import target_tokens

if TYPE_CHECKING:
    from models.local import LocalTranslator
    from models.store.diskcache import Held
    from models.store.store import Store

logger = get_logger(__name__)


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
                target_tokens=target_tokens(model),
                decoding=app.decoding(beam=model.decoding.beam, length_penalty=model.decoding.length_penalty),
            )
            failing.callback(translator.close)
            translator.warm_up(model.example)
            failing.pop_all()
        logger.info("%s computes in %s", model.name, translator.precision)
        return translator
