"""READ THIS FIRST: the way of a request from its texts to its answer, for every API.

The request's key and limits are checked, the models from source to target are found, the key is charged, the models are
asked, and their replies become the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
    tracing.annotate(texts=len(texts), characters=sum(map(len, texts)), principal=context.principal)
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
    elif idempotency_key is None:
        reply = _charge_and_ask(context, legs)
    else:
        input_hash = idempotency.hash_input(accepted, source, target, model)
        request_id, reply = _ask_once(context, legs, idempotency_key, input_hash)
    translated = iter(reply.results)
    results = tuple(next(translated) if failure is None else TextResult(error=failure) for failure in failures)
    tracing.annotate(failed=sum(result.error is not None for result in results) or None)
    _log_texts(context, "gets", [result.text for result in results])
    return TranslatedTexts(request_id, reply.model, reply.version, reply.via, tuple(texts), results)


def cancel(context: Context, request_id: str) -> bool:
    """Cancels a translation of the same caller. Returns whether it was in flight. Raises TolkError."""
    auth.demand(context.key, Scope.TRANSLATE)
    if not REQUEST_ID.fullmatch(request_id):  # no request has such an id
        return False
    return context.translator.cancel(request_id.lower(), context.principal)


def abandon(translator: Translator, repeats: Repeats, request_id: str, principal: str | None) -> None:
    """Ends a translation whose client has hung up, whether it waits for models or for a request that it repeats."""
    if not repeats.abandon(request_id, principal):
        translator.abandon(request_id, principal)


def ask_models(translator: Translator, request_id: str, legs: Sequence[TranslateRequest]) -> TranslateReply:
    """Asks the models of the legs, one after the other, and returns one reply. Raises TolkError."""
    with translator.begin(request_id, legs[0].principal, legs[0].caller or "") as flight:
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
        caller=context.caller,
    )


def _charge_and_ask(context: Context, legs: Sequence[TranslateRequest]) -> TranslateReply:
    """Asks the models and charges the caller's key, if there is one. Texts that fail are refunded."""
    if context.key is None:
        return ask_models(context.translator, context.request_id, legs)
    texts = legs[0].texts
    charge = context.ledger.charge(context.key, sum(map(len, texts)), legs[0].deadline)
    try:
        reply = ask_models(context.translator, context.request_id, legs)
    except BaseException:
        context.ledger.give_back(charge)
        raise
    if failed := _failed_characters(texts, reply):
        context.ledger.give_back(replace(charge, characters=failed))
    return reply


def _ask_once(
    context: Context, legs: Sequence[TranslateRequest], idempotency_key: str, input_hash: str
) -> tuple[str, TranslateReply]:
    """The reply to the first request with this idempotency key, and the id of that request. Only the first is charged
    for its characters."""
    request_id, texts = context.request_id, legs[0].texts
    claim = Claim(
        principal=context.principal or "",
        key=idempotency_key,
        input_hash=input_hash,
        request_id=request_id,
        deadline=legs[0].deadline,
        charged=sum(map(len, texts)),
        charged_day=quotas.today(),
    )
    found = context.repeats.claim(claim, context.key)
    if isinstance(found, Answered):
        return found.request_id, TranslateReply.decode(found.answer)
    try:
        reply = ask_models(context.translator, context.request_id, legs)
    except BaseException:
        context.ledger.release(found)
        raise
    if any(result.error is not None and result.error.code in PASSING for result in reply.results):
        context.ledger.release(found)
    else:
        context.ledger.settle(found, reply.encode(), _failed_characters(texts, reply))
    return request_id, reply


def _failed_characters(texts: Sequence[str], reply: TranslateReply) -> int:
    """The number of characters of the texts that were not translated."""
    return sum(len(text) for text, result in zip(texts, reply.results, strict=True) if result.error is not None)


def _log_texts(context: Context, what: str, texts: Sequence[str | None]) -> None:
    """Logs texts, if TOLK_LOG_TEXTS is on. No other function logs texts."""
    if context.settings.log_texts:
        log.info("Request %s %s: %r", context.request_id, what, texts)
