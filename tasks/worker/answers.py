"""Translates the requests of a message and makes the reply to each, also for errors. It imports no `models`."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tasks.contract.bundle import Bundled, Unreadable
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import request_of
from tasks.contract.reply import AlternativeResult, Failure, Flag, SentenceResult, TextResult, TranslateReply
from tasks.contract.request import HONOURED
from tasks.serving import Asked, ModelsInMemory
from telemetry import logs

WAY_BACK = 0.25  # seconds before the deadline that are kept for sending the reply

Answer = tuple[Bundled | Unreadable, TranslateReply]

logger = logging.getLogger(__name__)


def answers(
    requests: Sequence[Bundled | Unreadable],
    models: ModelsInMemory,
    blank: TranslateReply,
    is_unwanted: Callable[[str], bool],
) -> Iterator[Answer]:
    """Translates requests, those for the same model at once. Yields each with its reply as soon as that is there,
    shortly before the request's deadline at the latest.

    `blank` has what all replies have in common. `is_unwanted` says of a request's id whether it has been cancelled.
    """
    by_model: dict[str, list[Bundled]] = {}
    for each in requests:
        if isinstance(each, Unreadable):
            yield each, replace(blank, error=_failure(each.error))
        else:
            by_model.setdefault(each.request.model, []).append(each)
    for model, some in by_model.items():
        yield from _by_one_model(some, models, replace(blank, model=model), is_unwanted)


def _by_one_model(
    requests: Sequence[Bundled], models: ModelsInMemory, blank: TranslateReply, is_unwanted: Callable[[str], bool]
) -> Iterator[Answer]:
    began, now = time.monotonic(), time.time()
    left: dict[str, Bundled] = {}
    asked: dict[str, Asked] = {}
    for each in requests:
        if (remaining := each.request.deadline - now) <= 0:
            yield each, replace(blank, error=_failure(_too_late()))
        else:
            deadline = began + remaining - min(WAY_BACK, remaining / 10)
            left[each.task_id] = each
            asked[each.task_id] = Asked(each.request, deadline, partial(is_unwanted, each.task_id))
    if not asked:
        return
    try:
        with models.use(blank.model, max(each.deadline for each in asked.values())) as model:
            blank = _loaded(blank, began)
            for each in [each for each in left.values() if each.request.version not in (None, model.version)]:
                del asked[each.task_id]
                yield left.pop(each.task_id), replace(blank, error=_failure(_other_version(each, model.version)))
            for task_id, outcome in model.translate(asked):
                logs.request_id.set(request_of(task_id) or None)
                yield left.pop(task_id), _reply(outcome, blank, model.version)
    except Exception as error:  # noqa: BLE001 - the boundary of this tier: every error becomes a reply
        failed = replace(blank if blank.timings.load else _loaded(blank, began), error=_failure(error))
        yield from ((each, failed) for each in left.values())


def _loaded(blank: TranslateReply, began: float) -> TranslateReply:
    return replace(blank, timings=replace(blank.timings, load=time.monotonic() - began))


def _too_late() -> TolkError:
    return TolkError(Code.TIMEOUT, "The deadline passed before the translation began. Allow more time, or try again.")


def _other_version(each: Bundled, version: str) -> TolkError:
    return TolkError(Code.UNKNOWN_MODEL, f"{each.request.model} has version {version}, not {each.request.version}.")


def _reply(outcome: Any, blank: TranslateReply, version: str) -> TranslateReply:
    """The reply with an outcome of a model: a Translated, or an error for the whole request."""
    if isinstance(outcome, Exception):
        return replace(blank, error=_failure(outcome))
    took = outcome.timings
    return replace(
        blank,
        version=version,
        results=tuple(_result(each) for each in outcome.results),
        timings=replace(blank.timings, wait=took.wait, prefill=took.prefill, decode=took.decode),
        tokens=outcome.tokens,
        honoured=HONOURED,
    )


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
