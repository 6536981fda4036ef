"""READ THIS FIRST: the way of a request from its texts to its answer, for every API.

The request's key and limits are checked, the models from source to target are found, the key is charged, the models are
asked, and their replies become the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from app.accounts import auth, idempotency, quotas
from app.accounts.idempotency import Answered, Claim
from app.accounts.keys import Scope
from app.accounts.repeats import Repeats
from app.settings import DEFAULT_TIMEOUT
from app.translation import limits, pivot
from app.translation.context import Context
from app.translation.translator import Translator
from tasks.contract.errors import Code
from tasks.contract.names import REQUEST_ID
from tasks.contract.reply import TextResult, TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.registry.ways import Leg
from telemetry import tracing

PASSING = {Code.TIMEOUT, Code.INTERNAL}  # errors of a text that another attempt may not have

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TranslatedTexts:
    """The answer: a result for each text, in order. `via` has the languages in between, none if a model translated
    directly. `request_id` is the request's or, if it repeats another by its idempotency key, that of the first one."""

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
    """Translates the texts. A text that is too long, or that fails, has a failure as its result.

    Raises TolkError if the request as a whole is refused, fails, or has no answer within `timeout` seconds of its
    arrival.
    """
    tracing.annotate(texts=len(texts), characters=_characters(texts), principal=context.principal)
    auth.demand(context.key, Scope.TRANSLATE)
    limits.check_timeout(timeout, context.settings)
    limits.check_texts(texts, context.settings)
    limits.check_names(source=source, target=target, model=model)
    way = context.registry.resolve(source, target, model)
    _log_texts(context, "asks", texts)
    failures = [limits.check_text(text, context.settings) for text in texts]
    accepted = tuple(text for text, failure in zip(texts, failures, strict=True) if failure is None)
    if idempotency_key is not None:
        idempotency.check_key(idempotency_key)
    legs = [_leg(context, accepted, each, timeout) for each in way]
    tracing.annotate(model="+".join(leg.model for leg in legs), source=legs[0].source, target=target)
    request_id = context.request_id
    if not accepted:
        reply = pivot.translate(legs, lambda leg: TranslateReply(leg.model))
    elif idempotency_key is None and context.key is None:
        reply = ask_models(context.translator, request_id, legs)
    else:
        hashed = [text if failure is None else [text] for text, failure in zip(texts, failures, strict=True)]
        input_hash = idempotency.hash_input(hashed, source, target, model)
        request_id, reply = _charge_and_ask(context, legs, idempotency_key, input_hash)
    translated = iter(reply.results)
    results = tuple(next(translated) if failure is None else TextResult(error=failure) for failure in failures)
    tracing.annotate(failed=sum(result.error is not None for result in results) or None)
    _log_texts(context, "gets", [result.text for result in results])
    return TranslatedTexts(request_id, reply.model, reply.version, reply.via, tuple(texts), results)


def cancel(context: Context, request_id: str) -> bool:
    """Cancels a translation of the same caller, whether it waits for models or for a request that it repeats. Returns
    whether there was one. Raises TolkError."""
    auth.demand(context.key, Scope.TRANSLATE)
    if not REQUEST_ID.fullmatch(request_id):  # no request has such an id
        return False
    request_id = request_id.lower()
    waited = context.repeats.cancel(request_id, context.principal)
    return waited or context.translator.cancel(request_id, context.principal)


def abandon(translator: Translator, repeats: Repeats, request_id: str, principal: str | None) -> None:
    """Ends a translation whose client has hung up, whether it waits for models or for a request that it repeats."""
    if not repeats.cancel(request_id, principal):
        translator.abandon(request_id, principal)


def ask_models(translator: Translator, request_id: str, legs: Sequence[TranslateRequest]) -> TranslateReply:
    """Asks the models of the legs, one after the other, and returns one reply. Raises TolkError."""
    with translator.begin(request_id, legs[0].principal) as flight:
        return pivot.translate(legs, flight.ask)


def _leg(context: Context, texts: tuple[str, ...], leg: Leg, timeout: float) -> TranslateRequest:
    """The request to one model. Of a leg after the first, pivot.translate replaces the texts."""
    return TranslateRequest(
        texts=texts,
        source=leg.pair.source,
        target=leg.pair.target,
        model=leg.model.name,
        options=leg.model.decoding,
        deadline=context.arrival + timeout,
        principal=context.principal,
    )


def _charge_and_ask(
    context: Context, legs: Sequence[TranslateRequest], idempotency_key: str | None, input_hash: str
) -> tuple[str, TranslateReply]:
    """Asks the models, and charges the caller's key, if there is one, for the texts that are translated. If the request
    repeats another one by its idempotency key, returns the reply to that one, and its id; texts that failed then for a
    reason that may pass are translated, and charged, now."""
    claim = Claim(
        principal=context.principal or "",
        key=idempotency_key or idempotency.lease(),
        input_hash=input_hash,
        request_id=context.request_id,
        deadline=legs[0].deadline,
        charged=_characters(legs[0].texts),
        charged_day=quotas.today(),
    )
    if idempotency_key is None and context.key is not None:
        found: Claim | Answered = context.ledger.lease(claim, context.key)
    else:
        found = context.repeats.claim(claim, context.key)
    if isinstance(found, Answered):
        return found.request_id, TranslateReply.decode(found.answer)
    delivered = None if found.delivered is None else TranslateReply.decode(found.delivered)
    texts = legs[0].texts if delivered is None else _with(PASSING, legs[0].texts, delivered)
    try:
        reply = ask_models(context.translator, context.request_id, [replace(leg, texts=texts) for leg in legs])
    except BaseException:
        context.ledger.release(found)
        raise
    failed, outstanding = (_characters(_with(codes, texts, reply)) for codes in (set(Code), PASSING))
    if delivered is not None:
        renewed = iter(reply.results)
        results = tuple(next(renewed) if _failed(result, PASSING) else result for result in delivered.results)
        reply = replace(delivered, results=results, worker=reply.worker, timings=reply.timings)
    if idempotency_key is None and failed:
        context.ledger.release(found, failed)
    elif idempotency_key is None:
        context.ledger.end(found)
    else:
        context.ledger.settle(found, reply.encode(), failed, outstanding)
    return context.request_id, reply


def _failed(result: TextResult, codes: Collection[Code]) -> bool:
    return result.error is not None and result.error.code in codes


def _with(codes: Collection[Code], texts: Sequence[str], reply: TranslateReply) -> tuple[str, ...]:
    """The texts that failed with one of the codes."""
    return tuple(text for text, result in zip(texts, reply.results, strict=True) if _failed(result, codes))


def _characters(texts: Sequence[str]) -> int:
    return sum(map(len, texts))


def _log_texts(context: Context, what: str, texts: Sequence[str | None]) -> None:
    """Logs texts, if TOLK_LOG_TEXTS is on. No other function logs texts."""
    if context.settings.log_texts:
        log.info("Request %s %s: %r", context.request_id, what, texts)
