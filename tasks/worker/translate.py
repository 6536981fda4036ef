"""The task: a payload in, a payload out. Every error of the domain is a reply; nothing here knows the models."""

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

WAY_BACK = 0.25  # seconds kept for the reply, so that what was translated by the deadline still arrives in time
OK = "OK"  # the outcome of a task whose reply has no error

# Workers register these, in tasks.worker.metrics. Others, such as Flower, have this module and other metrics.
TASKS = Counter("tolk_tasks", "Tasks by outcome: OK or a code of the contract.", ["code"], registry=None)
TASK_SECONDS = Histogram(
    "tolk_task_seconds",
    "Seconds from a task's beginning to its reply.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
    registry=None,
)
for outcome in (OK, *Code):
    TASKS.labels(outcome)  # from the start, so that the first one is an increase

logger = logging.getLogger(__name__)


# Celery logs and shows to monitors how a task's result looks. It would be people's texts: no character of them.
@app.task(name=TASK, bind=True, resultrepr_maxsize=0, Request="tasks.worker.request:Request")
def translate(self: Task[Any, Any], payload: object) -> dict[str, Any]:
    """From an encoded TranslateRequest to an encoded TranslateReply, a little before the request's deadline."""
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
    except Exception as error:  # noqa: BLE001 - the edge of this tier: whatever happened becomes a reply
        failure = _failure(error)
        if failure.code is Code.UNAVAILABLE and (state.should_stop, state.should_terminate) != (None, None):
            raise Reject("this worker is stopping", requeue=True) from None  # another one will take it
        reply = replace(reply, error=failure)
    reply = replace(reply, timings=RequestTimings(**took))
    _tell(task_id, request, reply, time.monotonic() - began)
    _export_spans(reply.timings, received, self.request.headers or {})
    return reply.encode()


def _translated(
    request: TranslateRequest, task_id: str, reply: TranslateReply, took: dict[str, float]
) -> TranslateReply:
    """The reply, with seconds that are known of it already in `took`, which gets more, whatever happens."""
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
    """The metrics and the log of a task, and none of its texts."""
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
    """The wait in the queue, beside the task's own span, and the task's stages, below it."""
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
    """An error of the domain as it is; any other is our own fault, and what it says is not for the caller."""
    if isinstance(error, TolkError):
        return Failure(error.code, error.message, error.retry_after)
    code = Code(getattr(error, "code", Code.INTERNAL))
    if code is Code.INTERNAL:
        # Where it happened, without what it says, which may quote a text.
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("translation failed with %s:\n%s", type(error).__name__, where)
        return Failure(Code.INTERNAL, "The translation failed inside the service. Its log says why.")
    return Failure(code, str(error))
