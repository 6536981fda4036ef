"""The interface through which the task uses the models in memory.

The task must not import the package `models`: Flower imports the task and has no `models` installed.
"""

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
        """Returns a `models.translation.results.Translated`; for the arguments see
        `models.local.LocalTranslator.translate`."""


class ModelsInMemory(Protocol):
    def use(self, name: str, deadline: float) -> AbstractContextManager[TranslatingModel]:
        """The model `name`, which stays in memory until the `with` ends.

        Waits until it is loaded, at most until `deadline` (a time.monotonic()). Raises TolkError, or another error
        whose `code` is a code of the contract.
        """
