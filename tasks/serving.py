"""What the task asks of the models in memory, so that it does not know the package that they are of: Flower has the
task, and no models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from tasks.contract.names import Priority


class TranslatingModel(Protocol):
    @property
    def version(self) -> str: ...

    def translate(
        self,
        texts: Sequence[str],
        *,
        source: str | None,
        target: str | None,
        beam: int,
        nbest: int,
        length_penalty: float,
        deadline: float,
        priority: Priority,
        group: str | None,
        unwanted: Callable[[], bool],
    ) -> Any:
        """A `models.local.Translated`; the rest is as in `models.local.LocalTranslator.translate`."""


class ModelsInMemory(Protocol):
    def use(self, name: str, deadline: float) -> AbstractContextManager[TranslatingModel]:
        """A model, which stays in memory inside of the `with`.

        Raises TolkError, or an error with a `code` of the contract, at `deadline` (a time.monotonic()) at the latest.
        """
