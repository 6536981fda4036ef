"""The interface through which the task uses the models in memory.

The task must not import the package `models`: Flower imports the task and has no `models` installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.contract.request import TranslateRequest


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a model, which has to be answered by `deadline` (a time.monotonic()).

    `unwanted` says whether it has been cancelled.
    """

    request: TranslateRequest
    deadline: float
    unwanted: Callable[[], bool]


class TranslatingModel(Protocol):
    @property
    def version(self) -> str: ...

    def translate(self, asked: Mapping[str, Asked]) -> Iterator[tuple[str, Any]]:
        """Translates requests, by the ids with which they can be cancelled. Yields the id and the outcome of each as
        soon as it is there: a `models.translation.results.Translated`, or the error for the whole request."""


class ModelsInMemory(Protocol):
    def use(self, name: str, deadline: float) -> AbstractContextManager[TranslatingModel]:
        """The model `name`, which stays in memory until the `with` ends.

        Waits until it is loaded, at most until `deadline` (a time.monotonic()). Raises TolkError, or another error
        whose `code` is a code of the contract.
        """
