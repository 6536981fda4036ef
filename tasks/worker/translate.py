"""The task: it takes an encoded request and returns an encoded reply, also for errors. It imports no `models`."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

from celery import Task
from celery.exceptions import Reject
from celery.worker import state
from prometheus_client import Counter, Histogram

from tasks.celery import app
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import PUBLISHED, TASK
from tasks.contract.reply import (
    AlternativeResult,
    Failure,
    Flag,
    RequestTimings,
    SentenceResult,
    TextResult,
    TranslateReply,
)
from tasks.contract.request import TranslateRequest
from telemetry import tracing

WAY_BACK = 0.25  # seconds before the deadline that are kept for sending the reply
OK = "OK"  # the outcome of a task whose reply has no error

# tasks.worker.metrics registers these in workers. Other processes that import this module have metrics of their own.
TASKS = Counter("tolk_tasks", "Tasks by outcome: OK or an error code.", ["code"], registry=None)
TASK_SECONDS = Histogram(
    "tolk_task_seconds",
    "Seconds from the start of a task to its reply.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
    registry=None,
)
for outcome in (OK, *Code):
    TASKS.labels(outcome)  # all exist from the start with 0, so that Prometheus sees the first one as an increase

logger = logging.getLogger(__name__)


# Celery logs the repr of a task's result and shows it to monitors. It has people's texts, so it is cut to 0 characters.
@app.task(name=TASK, bind=True, resultrepr_maxsize=0, Request="tasks.worker.request:Request")
def translate(self: Task[Any, Any], payload: object) -> dict[str, Any]:
    """Translates an encoded TranslateRequest and returns an encoded TranslateReply, shortly before the deadline."""
    received, began = time.time(), time.monotonic()
    reply = TranslateReply(model="", worker=self.request.hostname or "")
    took: dict[str, float] = {}
    task_id = self.request.id or ""
    request = None
    try:
        request = TranslateRequest.decode(payload)
        reply = replace(reply, model=request.model)
        published = (self.request.headers or {}).get(PUBLISHED, received)
        took["queue"] = max(0.0, received - published)
        reply = _translated(request, task_id, reply, took)
    except Exception as error:  # noqa: BLE001 - the boundary of this tier: every error becomes a reply
        failure = _failure(error)
        if failure.code is Code.UNAVAILABLE and (state.should_stop, state.should_terminate) != (None, None):
            raise Reject("this worker is stopping", requeue=True) from None  # another worker will take the request
        reply = replace(reply, error=failure)
    reply = replace(reply, timings=RequestTimings(**took))
    _tell(task_id, request, reply, time.monotonic() - began)
    _export_spans(reply.timings, received, self.request.headers or {})
    return reply.encode()


def _translated(
    request: TranslateRequest, task_id: str, reply: TranslateReply, took: dict[str, float]
) -> TranslateReply:
    """`reply` completed with the translations. Adds the seconds of each stage to `took`, as far as the request came."""
    remaining = request.deadline - time.time()
    if remaining <= 0:
        raise TolkError(
            Code.TIMEOUT, "The deadline passed before the translation began. Allow more time, or try again."
        )
    began = time.monotonic()
    deadline = began + remaining - min(WAY_BACK, remaining / 10)
    with ExitStack() as stack:
        try:
            model = stack.enter_context(app.models.use(request.model, deadline))
        finally:
            took["load"] = time.monotonic() - began
        if request.version not in (None, model.version):
            raise TolkError(Code.UNKNOWN_MODEL, f"{request.model} has version {model.version}, not {request.version}.")
        translated = model.translate(
            request.texts,
            source=request.source,
            target=request.target,
            beam=request.options.beam,
            nbest=request.options.nbest,
            length_penalty=request.options.length_penalty,
            deadline=deadline,
            priority=request.priority,
            group=task_id,
            unwanted=lambda: task_id in state.revoked,
        )
    timings = translated.timings
    took.update(wait=timings.wait, prefill=timings.prefill, decode=timings.decode)
    return replace(reply, version=model.version, results=tuple(_result(each) for each in translated.results))


def _tell(task_id: str, request: TranslateRequest | None, reply: TranslateReply, seconds: float) -> None:
    """Counts and logs a task that took `seconds`, without its texts."""
    outcome = OK if reply.error is None else reply.error.code.value
    TASKS.labels(outcome).inc()
    TASK_SECONDS.observe(seconds)
    if not logger.isEnabledFor(logging.INFO):
        return
    fields: dict[str, Any] = {"ms": round(1000 * seconds, 1)}
    fields |= {f"{stage}_ms": round(1000 * spent, 1) for stage, spent in asdict(reply.timings).items()}
    if request is not None:
        fields |= {each: getattr(request, each) for each in ("model", "source", "target", "priority")}
        fields |= {"texts": len(request.texts), "characters": sum(map(len, request.texts))}
    logger.info("%s[%s] %s", TASK, task_id, outcome, extra={"fields": fields})


def _export_spans(timings: RequestTimings, received: float, headers: Mapping[str, Any]) -> None:
    """Exports the wait in the queue as a sibling of the task's span, and the task's stages as its children."""
    tracing.export("queue", received - timings.queue, timings.queue, headers)
    for stage in ("load", "wait", "prefill", "decode"):
        tracing.export(stage, received, getattr(timings, stage))
        received += getattr(timings, stage)


def _result(translation: Any) -> TextResult:
    if translation.error is not None:
        return TextResult(error=_failure(translation.error))
    return TextResult(
        text=translation.text,
        score=translation.score,
        alternatives=tuple(AlternativeResult(each.text, each.score) for each in translation.alternatives),
        flags=_flags(translation),
        sentences=tuple(
            SentenceResult(each.source, each.target, each.score, _flags(each)) for each in translation.sentences
        ),
    )


def _flags(flagged: Any) -> tuple[Flag, ...]:
    return tuple(Flag(flag) for flag in flagged.flags)


def _failure(error: Exception) -> Failure:
    """The Failure of an error: as it is if it has a code, else INTERNAL without its message, which may quote a text."""
    if isinstance(error, TolkError):
        return Failure(error.code, error.message, error.retry_after)
    code = Code(getattr(error, "code", Code.INTERNAL))
    if code is Code.INTERNAL:
        # The log has the place of the error without its message, which may quote a text.
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("translation failed with %s:\n%s", type(error).__name__, where)
        return Failure(Code.INTERNAL, "The translation failed inside the service. Its log says why.")
    return Failure(code, str(error))
