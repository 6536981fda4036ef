"""The queues that a worker may consume: all queues of the registry, now and later, or what -Q and -X select of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.app import amqp
from kombu.utils.functional import maybe_list

from tasks.contract.names import queue_names


class SelectedQueues(amqp.Queues):
    """Celery's queues, which also remember the selection of -Q and -X, for queues that come later.

    A prefix of names that ends before a dot selects all of these queues: `tolk.translate.fr-en`,
    `tolk.translate.on-demand`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: set[str] | None = None
        self.shunned: set[str] = set()

    def select(self, include: Sequence[str] | str | None) -> None:
        """Consume only these queues. Raises KeyError for an unknown name."""
        if include:
            self.told = {queue for name in maybe_list(include) for queue in self.named(name)}
            super().select(sorted(self.told))

    def deselect(self, exclude: Sequence[str] | str | None) -> None:
        """Do not consume these queues."""
        if exclude:
            names = {queue for name in maybe_list(exclude) for queue in self.named(name)}
            self.shunned |= names
            super().deselect(sorted(names))

    def of(self, route: str) -> list[str]:
        """The names of a route's queues that may be consumed; the route need not exist yet."""
        return [
            name for name in queue_names(route) if (self.told is None or name in self.told) and name not in self.shunned
        ]

    def named(self, name: str) -> list[str]:
        """The names of all queues that have the prefix `name` before a dot; `name` itself if there are none."""
        return [each for each in self if each.startswith(f"{name}.")] or [name]


class AMQP(amqp.AMQP):
    queues_cls = SelectedQueues
