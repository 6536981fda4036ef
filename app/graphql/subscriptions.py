"""The subscriptions of the GraphQL API, over server-sent events: the distinct connections mode of the protocol of
graphql-sse (https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field

import graphene
from flask import Request, Response
from graphql import ExecutionResult, GraphQLResolveInfo

from app.graphql.jobs import JobType, find, job_type
from app.jobs import store
from app.jobs.job import ENDED, Job
from app.jobs.limits import refusal
from app.jobs.updates import JobUpdates
from app.web.connection import Connection
from app.web.streams import MIMETYPE, Events, Stream, Streams
from tasks.contract.errors import Code, TolkError

COMPLETE = b"event: complete\ndata: \n\n"


@dataclass(eq=False, slots=True)
class Subscribed:
    """A subscription that is executed once for each event, by `execute` with this as its root. `job` is None before the
    first event. `caller` is who subscribes."""

    caller: str
    execute: Callable[[Subscribed], ExecutionResult] = field(repr=False)
    job: Job | None = None

    def event(self) -> ExecutionResult:
        return self.execute(self)


def resolve_job_updated(root: Subscribed, info: GraphQLResolveInfo, *, id: str) -> JobType:
    if root.job is None:
        root.job = find(info.context, id)
    if root.job is None:
        raise refusal(f"id: {store.GONE}")
    return job_type(root.job)


class Subscription(graphene.ObjectType):
    """What tells of changes when they happen, over server-sent events."""

    job_updated = graphene.Field(
        JobType,
        required=True,
        id=graphene.ID(required=True, description="The job's id."),
        resolver=resolve_job_updated,
        description="A job as it is now, and again after it has changed, until it has ended.",
    )


class Subscriptions:
    """Turns results into responses of server-sent events. Those that go on belong to `streams`."""

    def __init__(self, updates: JobUpdates, streams: Streams) -> None:
        self._updates = updates
        self._streams = streams

    def respond(
        self,
        request: Request,
        response: Response,
        first: str,
        subscribed: Subscribed | None,
        encode: Callable[[ExecutionResult], str],
    ) -> Response:
        """Makes a response of server-sent events. `first` is the first result, in JSON. If it is the state of a
        `subscribed` job that has not ended, more will follow, which `encode` makes JSON of.

        Raises TolkError: OVERLOADED if there are too many subscriptions, UNAVAILABLE if the server cannot keep one.
        """
        response.headers["Content-Type"] = f"{MIMETYPE}; charset=utf-8"
        response.headers["X-Accel-Buffering"] = "no"  # or nginx would hold events back until it has some kilobytes
        response.status_code = 200
        job = None if subscribed is None else subscribed.job
        if subscribed is None or job is None or job.status in ENDED or request.method == "HEAD":
            response.set_data(_next(first) + COMPLETE)
            return response
        client = request.environ.get("gunicorn.socket")
        if not isinstance(client, Connection):
            message = "Subscriptions need gunicorn, without TLS of its own: the operator has to put a proxy before it."
            raise TolkError(Code.UNAVAILABLE, message)
        self._streams.admit(subscribed.caller)
        self._updates.watch(job)
        number = job.number
        run = copy_context().run  # the context has the request's id, for errors
        stream = Stream(
            subscribed.caller,
            lambda: self._news(number, subscribed, lambda: run(lambda: encode(subscribed.event()))),
            lambda: self._updates.unwatch(number),
            is_chunked=request.environ["SERVER_PROTOCOL"] == "HTTP/1.1",
        )
        stream.put(Events(_next(first)))
        client.bequeath(lambda client, head: self._streams.add(stream, client, head))
        response.response = iter(())
        response.headers.pop("Content-Length", None)
        return response

    def _news(self, number: int, subscribed: Subscribed, encoded: Callable[[], str]) -> Events:
        job = self._updates.present(number)
        if job is None:
            return Events(COMPLETE, is_last=True)
        if subscribed.job is not None and job.revision == subscribed.job.revision:
            return Events(b"")
        subscribed.job = job
        is_last = job.status in ENDED
        return Events(_next(encoded()) + (COMPLETE if is_last else b""), is_last)


def is_asked_for(request: Request) -> bool:
    """Whether a client wants server-sent events."""
    return MIMETYPE in request.headers.get("Accept", "").lower()


def _next(result: str) -> bytes:
    return f"event: next\ndata: {result}\n\n".encode()
