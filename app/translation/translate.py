"""READ THIS FIRST: the way of a request from its texts to its answer, for every API.

The request's key and limits are checked, its texts are divided by their languages, the models from there to the target
are found, the key is charged, the models are asked, and their replies become the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from app.accounts import auth, idempotency, quotas
from app.accounts.idempotency import Answered, Claim
from app.accounts.keys import Scope
from app.accounts.repeats import Repeats
from app.settings import DEFAULT_TIMEOUT
from app.translation import limits, pivot
from app.translation.context import Context
from app.translation.outcome import Origin, Outcome
from app.translation.parts import Division, divide
from app.translation.translator import Translator
from tasks.contract.errors import Code
from tasks.contract.names import REQUEST_ID
from tasks.contract.reply import TextResult, TranslateReply
from tasks.contract.request import Holds, Lines, RequestOptions, TranslateRequest
from tasks.registry.ways import Leg
from telemetry import tracing
from text.languages import canonical

PASSING = {Code.TIMEOUT, Code.INTERNAL}  # errors of a text that another attempt may not have

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TranslatedTexts:
    """The answer: a result and an origin for each text, in order. Languages are as they were understood, in the
    spelling of the models on offer.

    `source`, `model`, `version` and `via` (the languages in between, none if a model translated directly) are those of
    all texts, as app.translation.outcome.Outcome has them. `request_id` is the request's or, if it repeats another by
    its idempotency key, that of the first one.
    """

    request_id: str
    source: str | None
    target: str
    model: str
    version: str | None
    via: tuple[str, ...]
    texts: tuple[str, ...]
    results: tuple[TextResult, ...]
    origins: tuple[Origin, ...]


def translate(
    context: Context,
    texts: Sequence[str],
    *,
    source: str | None,
    target: str,
    model: str | None = None,
    assume: str | None = None,
    nbest: int = 1,
    lines: Lines = Lines.KEEP,
    holds: Holds = Holds.AUTO,
    preserve: Sequence[str] = (),
    timeout: float = DEFAULT_TIMEOUT,
    idempotency_key: str | None = None,
) -> TranslatedTexts:
    """Translates the texts. A text that is too long, or that fails, has a failure as its result.

    Without `source`, each text is in the language that is detected (app.translation.parts.divide). Each translation has
    up to `nbest` - 1 alternatives. `lines` says whether the lines of a paragraph are joined. `holds` and the phrases to
    `preserve` come through as they are.

    Raises TolkError if the request as a whole is refused, fails, or has no answer within `timeout` seconds of its
    arrival.
    """
    tracing.annotate(texts=len(texts), characters=sum(map(len, texts)), principal=context.principal)
    auth.demand(context.key, Scope.TRANSLATE)
    limits.check_timeout(timeout, context.settings)
    limits.check_texts(texts, context.settings)
    limits.check_names(source=source, target=target, model=model, assume=assume)
    limits.check_nbest(nbest)
    limits.check_preserve(preserve)
    _log_texts(context, "asks", texts)
    failures = [limits.check_text(text, context.settings) for text in texts]
    accepted = tuple(text for text, failure in zip(texts, failures, strict=True) if failure is None)
    if idempotency_key is not None:
        idempotency.check_key(idempotency_key)
    division = divide(
        accepted, context.registry, context.detector, source=source, target=target, model=model, assume=assume
    )
    ways = [
        [replace(leg, lines=lines, holds=holds, preserve=tuple(preserve)) for leg in legs]
        for legs in _ways(context, division, accepted, timeout, nbest)
    ]
    tracing.annotate(
        model=", ".join("+".join(leg.model for leg in legs) for legs in ways) or None,
        source=", ".join(str(legs[0].source) for legs in ways) or None,
        target=division.target,
    )
    request_id = context.request_id
    if not any(part.positions for part in division.parts):
        outcome = Outcome.of(division, [pivot.translate(legs, lambda leg: TranslateReply(leg.model)) for legs in ways])
    elif idempotency_key is None and context.key is None:
        outcome = Outcome.of(division, ask_each(context.translator, request_id, ways))
    else:
        hashed = [text if failure is None else [text] for text, failure in zip(texts, failures, strict=True)]
        source, assume = (each and canonical(each) for each in (source, assume))
        held = [] if holds is Holds.AUTO and not preserve else [holds, *preserve]
        input_hash = idempotency.hash_input(hashed, source, canonical(target), model, assume, nbest, lines, held)
        request_id, outcome = _charge_and_ask(context, division, ways, accepted, idempotency_key, input_hash)
    answered = zip(outcome.results, outcome.origins, strict=True)
    results, origins = [], []
    for failure in failures:
        result, origin = next(answered) if failure is None else (TextResult(error=failure), Origin())
        results.append(result)
        origins.append(origin)
    tracing.annotate(failed=sum(result.error is not None for result in results) or None)
    _log_texts(context, "gets", [result.text for result in results])
    return TranslatedTexts(
        request_id,
        outcome.source,
        division.target,
        outcome.model,
        outcome.version,
        outcome.via,
        tuple(texts),
        tuple(results),
        tuple(origins),
    )


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
    [reply] = ask_each(translator, request_id, [legs])
    return reply


def ask_each(
    translator: Translator, request_id: str, ways: Sequence[Sequence[TranslateRequest]]
) -> list[TranslateReply]:
    """Asks the models of several ways in one flight, which can be cancelled as a whole. Returns a reply for each way.
    Raises TolkError."""
    if not ways:
        return []
    with translator.begin(request_id, ways[0][0].principal, ways[0][0].caller or "") as flight:
        return [pivot.translate(legs, flight.ask) for legs in ways]


def _ways(
    context: Context, division: Division, texts: Sequence[str], timeout: float, nbest: int
) -> list[list[TranslateRequest]]:
    """The requests to the models of each part: one for each leg. Of legs after the first, pivot.translate replaces the
    texts. Only the last leg makes alternatives."""
    ways = []
    for part in division.parts:
        legs = [
            TranslateRequest(
                texts=tuple(texts[position] for position in part.positions),
                source=leg.pair.source,
                target=leg.pair.target,
                model=leg.model.name,
                options=_options(leg, nbest if leg is part.way[-1] else 1),
                deadline=context.arrival + timeout,
                principal=context.principal,
                caller=context.caller,
            )
            for leg in part.way
        ]
        ways.append(legs)
    return ways


def _options(leg: Leg, nbest: int) -> RequestOptions:
    """How a model decodes: as its entry says, with a beam that is wide enough for `nbest` translations."""
    decoding = leg.model.decoding
    return decoding if nbest == 1 else replace(decoding, nbest=nbest, beam=max(nbest, decoding.beam))


def _charge_and_ask(
    context: Context,
    division: Division,
    ways: Sequence[Sequence[TranslateRequest]],
    texts: Sequence[str],
    idempotency_key: str | None,
    input_hash: str,
) -> tuple[str, Outcome]:
    """Asks the models, and charges the caller's key, if there is one, for the texts that are translated. If the request
    repeats another one by its idempotency key, returns the outcome of that one, and its id; texts that failed then for
    a reason that may pass are translated, and charged, now."""
    claim = Claim(
        principal=context.principal or "",
        key=idempotency_key or idempotency.lease(),
        input_hash=input_hash,
        request_id=context.request_id,
        deadline=ways[0][0].deadline,
        charged=_characters(ways),
        charged_day=quotas.today(),
    )
    if idempotency_key is None and context.key is not None:
        found: Claim | Answered = context.ledger.lease(claim, context.key)
    else:
        found = context.repeats.claim(claim, context.key)
    if isinstance(found, Answered):
        return found.request_id, Outcome.decode(found.answer, division)
    positions: Sequence[int] = range(len(texts))
    delivered = None if found.delivered is None else Outcome.decode(found.delivered, division)
    if delivered is not None:
        positions = [i for i, result in enumerate(delivered.results) if _failed(result, PASSING)]
        division, ways = division.only(positions), _only(positions, division, ways)
    try:
        outcome = Outcome.of(division, ask_each(context.translator, context.request_id, ways))
    except BaseException:
        context.ledger.release(found)
        raise
    failed, outstanding = (
        sum(
            len(texts[i])
            for i, result, origin in zip(positions, outcome.results, outcome.origins, strict=True)
            if _failed(result, codes) and origin.model is not None
        )
        for codes in (set(Code), PASSING)
    )
    if delivered is not None:
        outcome = delivered.renewed(positions, outcome)
    if idempotency_key is None and failed:
        context.ledger.release(found, failed)
    elif idempotency_key is None:
        context.ledger.end(found)
    else:
        context.ledger.settle(found, outcome.encode(), failed, outstanding)
    return context.request_id, outcome


def _only(
    positions: Collection[int], division: Division, ways: Sequence[Sequence[TranslateRequest]]
) -> list[list[TranslateRequest]]:
    """The requests to the models with only the texts at these positions; no request without texts."""
    kept = []
    for part, legs in zip(division.parts, ways, strict=True):
        texts = tuple(text for at, text in zip(part.positions, legs[0].texts, strict=True) if at in positions)
        if texts:
            kept.append([replace(leg, texts=texts) for leg in legs])
    return kept


def _failed(result: TextResult, codes: Collection[Code]) -> bool:
    return result.error is not None and result.error.code in codes


def _characters(ways: Iterable[Sequence[TranslateRequest]]) -> int:
    """The number of characters that models are asked to translate, by the first legs."""
    return sum(len(text) for legs in ways for text in legs[0].texts)


def _log_texts(context: Context, what: str, texts: Sequence[str | None]) -> None:
    """Logs texts, if TOLK_LOG_TEXTS is on. No other function logs texts."""
    if context.settings.log_texts:
        log.info("Request %s %s: %r", context.request_id, what, texts)
