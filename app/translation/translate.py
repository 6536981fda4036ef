"""READ THIS FIRST: what becomes of a request, from its texts to its answer, whichever API it came by.

Its key and its limits are checked, the models that lead to the target are found, it is charged, the models are asked,
and their replies become the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from app.accounts import auth, idempotency
from app.accounts.keys import Scope
from app.accounts.ledger import Answer, Once
from app.settings import DEFAULT_TIMEOUT
from app.translation import limits, pivot
from app.translation.context import Context
from tasks.contract.names import REQUEST_ID
from tasks.contract.reply import TextResult, TranslateReply
from tasks.contract.request import TranslateRequest
from telemetry import tracing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TranslatedTexts:
    """The answer: a result for each text, in order. `via` names the languages in between, none where a model leads to
    the target directly; `request_id` is that of the request that was answered first, where this one repeats it."""

    request_id: str
    model: str
    version: str | None
    via: tuple[str, ...]
    texts: tuple[str, ...]
    results: tuple[TextResult, ...]


def translate(
    context: Context,
    texts: Sequence[str],
    *,
    source: str | None,
    target: str,
    model: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    idempotency_key: str | None = None,
) -> TranslatedTexts:
    """The texts within the limits, translated; a failure for each of the others.

    Raises TolkError where the request as a whole cannot be answered within `timeout` seconds of its arrival.
    """
    tracing.annotate(texts=len(texts), characters=sum(map(len, texts)), principal=context.principal)
    auth.demand(context.key, Scope.TRANSLATE)
    limits.check_timeout(timeout, context.settings)
    limits.check_texts(texts, context.settings)
    limits.check_names(source=source, target=target, model=model)
    legs = context.registry.resolve(source, target, model)
    _log_texts(context, "asks", texts)
    failures = [limits.check_text(text, context.settings) for text in texts]
    accepted = [text for text, failure in zip(texts, failures, strict=True) if failure is None]
    once = None
    if idempotency_key is not None:
        idempotency.check_key(idempotency_key)
        once = Once(idempotency_key, idempotency.hash_input(accepted, source, target, model))
    request, *onward = (
        TranslateRequest(
            texts=tuple(accepted),
            source=pair.source,
            target=pair.target,
            model=entry.name,
            options=entry.decoding,
            deadline=context.arrival + timeout,
            principal=context.principal,
        )
        for entry, pair in legs
    )
    tracing.annotate(model="+".join(entry.name for entry, _ in legs), source=request.source, target=target)
    if accepted:
        answer = context.accounts.translate(request, context.request_id, context.key, once, *onward)
    else:
        answer = Answer(pivot.translate(request, onward, lambda leg: TranslateReply(leg.model)), context.request_id)
    reply = answer.reply
    translated = iter(reply.results)
    results = tuple(next(translated) if failure is None else TextResult(error=failure) for failure in failures)
    tracing.annotate(failed=sum(result.error is not None for result in results) or None)
    _log_texts(context, "gets", [result.text for result in results])
    return TranslatedTexts(answer.request_id, reply.model, reply.version, reply.via, tuple(texts), results)


def cancel(context: Context, request_id: str) -> bool:
    """Ends a translation of the same caller; whether it was in flight. Raises TolkError."""
    auth.demand(context.key, Scope.TRANSLATE)
    if not REQUEST_ID.fullmatch(request_id):  # no request has it
        return False
    return context.translator.cancel(request_id.lower(), context.principal)


def _log_texts(context: Context, what: str, texts: Sequence[str | None]) -> None:
    """The one place that logs texts, where somebody wanted that."""
    if context.settings.log_texts:
        log.info("Request %s %s: %r", context.request_id, what, texts)
