"""The queues that the models of models.toml need."""

from __future__ import annotations

from collections.abc import Iterator

from kombu import Queue

from tasks.contract.errors import Code, TolkError
from tasks.contract.names import Priority
from tasks.contract.request import TranslateRequest
from tasks.queues.topology import suspects_queue, translation_queue, translation_queues
from tasks.registry.file import RegistryFile


class RequestQueues:
    """The queues of the models that models.toml offers at the time of each call."""

    def __init__(self, models: RegistryFile) -> None:
        self._models = models
        self._made: dict[tuple[str, Priority], Queue] = {}  # by route; to make one takes as long as to find ten

    def of(self, request: TranslateRequest) -> Queue:
        """The queue for a request. Raises TolkError(UNKNOWN_MODEL) if its model is not offered any more."""
        model = self._models.current().models.get(request.model)
        if model is None:
            raise TolkError(Code.UNKNOWN_MODEL, f"There is no model {request.model!r} any more. Ask for another one.")
        key = model.route, request.priority
        if key not in self._made:
            self._made[key] = translation_queue(*key)
        return self._made[key]

    def for_translation(self) -> Iterator[Queue]:
        """The queues for interactive and for bulk work, of each route."""
        for route in self._models.current().routes:
            yield from translation_queues(route)

    def for_suspects(self) -> Iterator[Queue]:
        """The queues for suspects, of which all models on demand share one."""
        queues = map(suspects_queue, self._models.current().routes)
        yield from {queue.name: queue for queue in queues}.values()
