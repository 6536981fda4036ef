"""Which queues a worker may consume: all of the registry's, now and later, or those that it was told with -Q and -X."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.app import amqp
from kombu.utils.functional import maybe_list

from tasks.contract.names import queue_names


class SelectedQueues(amqp.Queues):
    """Celery's, which remember what they were told. What several begin with, up to a dot, names all of them:
    `tolk.translate.fr-en`, `tolk.translate.on-demand`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: set[str] | None = None
        self.shunned: set[str] = set()

    def select(self, include: Sequence[str] | str | None) -> None:
        """Raises KeyError for a name that there is not."""
        if include:
            self.told = {queue for name in maybe_list(include) for queue in self.named(name)}
            super().select(sorted(self.told))

    def deselect(self, exclude: Sequence[str] | str | None) -> None:
        if exclude:
            names = {queue for name in maybe_list(exclude) for queue in self.named(name)}
            self.shunned |= names
            super().deselect(sorted(names))

    def of(self, route: str) -> list[str]:
        """The queues of a route that may be consumed, as soon as there is such a route."""
        return [
            name for name in queue_names(route) if (self.told is None or name in self.told) and name not in self.shunned
        ]

    def named(self, name: str) -> list[str]:
        """Those that it begins, or else itself."""
        return [each for each in self if each.startswith(f"{name}.")] or [name]


class AMQP(amqp.AMQP):
    queues_cls = SelectedQueues
