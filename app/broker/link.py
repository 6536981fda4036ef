"""The connections and threads by which one process uses the broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from celery import Celery
from kombu import Queue

from app.broker import survey
from app.broker.admission import LONGEST, Admission
from app.broker.cancels import Cancels
from app.broker.commands import to_workers
from app.broker.connections import Connections
from app.broker.pending import WaitingRequests
from app.broker.publishing import Publisher
from app.broker.queues import RequestQueues
from app.broker.replies import HEARTBEAT, ReplyConsumer
from app.broker.survey import Surveys
from app.monitoring.recent_errors import ErrorCount
from tasks.contract.names import Priority


@dataclass(frozen=True, slots=True)
class Link:
    """The connections to publish on, the reply consumer, their threads, and the admission to each queue of requests."""

    connections: Connections
    cancels: Cancels
    replies: ReplyConsumer
    publisher: Publisher
    surveys: Surveys
    admissions: dict[str, Admission] = field(default_factory=dict)  # by the queue's name

    @classmethod
    def open(
        cls,
        celery: Celery,
        queues: RequestQueues,
        errors: Callable[[], Sequence[ErrorCount]],
        fresh: float,
        waiting: WaitingRequests | None,
    ) -> Link:
        """Starts the threads, which connect by themselves. `errors` returns the error counts that this process reports
        to other web processes. A status stays fresh for `fresh` seconds. `waiting` are requests that other processes
        can cancel, beside those in flight."""
        connections = Connections(celery.connection_for_write())
        cancels = Cancels(connections, to_workers(celery))
        replies = ReplyConsumer(celery.connection_for_read(heartbeat=HEARTBEAT), errors, cancels, waiting)
        surveys = Surveys(partial(survey.take, celery, queues, replies), fresh)
        return cls(connections, cancels, replies, Publisher(connections, replies), surveys)

    def admission(self, queue: Queue, priority: Priority) -> Admission:
        """The admission to a queue."""
        known = self.admissions.get(queue.name)
        return known or self.admissions.setdefault(queue.name, Admission(LONGEST[priority]))

    def close(self) -> None:
        """Ends flights with UNAVAILABLE. When this returns, the threads have ended and the connections are closed."""
        listens = self.replies.ready.is_set()
        self.surveys.close()
        self.replies.close()
        self.cancels.close()
        self.connections.close(listens=listens)
