"""The task: it takes an encoded request, or a bundle of them, and sends an encoded reply to each, also for errors.

It imports no `models`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from celery.exceptions import Reject
from celery.worker import state
from prometheus_client import Counter, Histogram

from tasks.celery import app
from tasks.contract.bundle import Bundled, Unreadable, decode_bundle
from tasks.contract.errors import Code, TolkError
from tasks.contract.fields import plain
from tasks.contract.names import PUBLISHED, TASK
from tasks.contract.reply import RequestTimings, TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.worker.answers import answers
from tasks.worker.request import current
from telemetry import tracing

OK = "OK"  # the outcome of a request whose reply has no error

# tasks.worker.metrics registers these in workers. Other processes that import this module have metrics of their own.
TASKS = Counter("tolk_tasks", "Requests by outcome: OK or an error code.", ["code"], registry=None)
TASK_SECONDS = Histogram(
    "tolk_task_seconds",
    "Seconds from the start of a request's task to its reply.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
    registry=None,
)
for outcome in (OK, *Code):
    TASKS.labels(outcome)  # all exist from the start with 0, so that Prometheus sees the first one as an increase

logger = logging.getLogger(__name__)


def answered() -> int:
    """The number of requests that this process has answered."""
    [counted] = TASKS.collect()
    return int(sum(sample.value for sample in counted.samples if sample.name.endswith("_total")))


# Celery logs the repr of a task's result and shows it to monitors, but this task sends its replies itself.
@app.task(name=TASK, ignore_result=True, Request="tasks.worker.request:Request")
def translate(payload: object) -> None:
    """Translates an encoded TranslateRequest, or a list of encoded Bundled, and sends each reply when it is ready.

    A worker that stops rejects the message if it cannot finish all of them: tasks.worker.request publishes the others
    again.
    """
    received, began = time.time(), time.monotonic()
    held = current.get()
    headers = held.message.headers
    queued = max(0.0, received - headers.get(PUBLISHED, received))
    blank = TranslateReply(model="", worker=held.hostname or "", timings=RequestTimings(queue=queued))
    is_finished = True
    try:
        for each, reply in answers(_requests(held.id, payload), app.models, blank, held.is_unwanted):
            if reply.error is not None and reply.error.code is Code.UNAVAILABLE and _is_stopping():
                is_finished = False
                continue
            held.reply(each.task_id, reply)
            _tell(each, reply, time.monotonic() - began)
            trace = each.trace if held.bundled and isinstance(each, Bundled) else None
            _export_spans(reply.timings, received, headers, trace)
    except Exception:
        held.refuse(Code.INTERNAL, "The translation failed inside the service. Its log says why.")
        raise
    if not is_finished:  # another worker will take these requests
        raise Reject("this worker is stopping", requeue=True)


def _requests(task_id: str, payload: object) -> list[Bundled | Unreadable]:
    """The requests of a message, of which one that is no bundle has the message's id."""
    if found := decode_bundle(payload):
        return found
    try:
        return [Bundled(task_id, TranslateRequest.decode(payload))]
    except TolkError as error:
        return [Unreadable(task_id, error)]


def _is_stopping() -> bool:
    return (state.should_stop, state.should_terminate) != (None, None)


def _tell(each: Bundled | Unreadable, reply: TranslateReply, seconds: float) -> None:
    """Counts and logs a request that took `seconds`, without its texts."""
    outcome = OK if reply.error is None else reply.error.code.value
    TASKS.labels(outcome).inc()
    TASK_SECONDS.observe(seconds)
    if not logger.isEnabledFor(logging.INFO):
        return
    fields: dict[str, Any] = {"ms": round(1000 * seconds, 1)}
    fields |= {f"{stage}_ms": round(1000 * spent, 1) for stage, spent in plain(reply.timings).items()}
    if isinstance(each, Bundled):
        fields |= {name: getattr(each.request, name) for name in ("model", "source", "target", "priority")}
        fields |= {"texts": len(each.request.texts), "characters": sum(map(len, each.request.texts))}
    logger.info("%s[%s] %s", TASK, each.task_id, outcome, extra={"fields": fields})


def _export_spans(
    timings: RequestTimings, received: float, headers: Mapping[str, Any], trace: Mapping[str, str] | None
) -> None:
    """Exports the wait in the queue as a sibling of the task's span, and the task's stages as its children.

    A request of a bundle has headers of its own, its `trace`. Its stages belong there, and the task's span links to it.
    """
    if trace is not None:
        tracing.link(trace)
    tracing.export("queue", received - timings.queue, timings.queue, headers if trace is None else trace)
    for stage in ("load", "wait", "prefill", "decode"):
        tracing.export(stage, received, getattr(timings, stage), trace)
        received += getattr(timings, stage)
