"""The GraphQL schema: types after the contract, and thin resolvers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import graphene
from graphql import GraphQLResolveInfo

from app.accounts import auth, idempotency
from app.accounts.keys import Key, Scope
from app.accounts.ledger import Accounts, Answer, Once
from app.monitoring.status import ErrorCount, Readiness, Status
from app.settings import DEFAULT_TIMEOUT, Settings
from app.translation import limits, pivot
from app.translation.translator import Translator
from tasks.contract.errors import Code
from tasks.contract.names import REQUEST_ID
from tasks.contract.reply import Flag, TextResult, TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.registry.entry import Entry
from tasks.registry.ways import Registry, Way
from telemetry import tracing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """What the resolvers of one request work with; `arrival` is in Unix seconds."""

    settings: Settings
    registry: Registry
    translator: Translator
    request_id: str
    arrival: float
    key: Key | None  # None where none is needed
    accounts: Accounts

    @property
    def principal(self) -> str | None:
        """Who asks, in messages and tables."""
        return None if self.key is None else self.key.principal


FLAGS = {
    Flag.REPETITION: "The model ran away repeating itself: this is a second try, or was shortened.",
    Flag.UNKNOWN_TOKENS: "The text holds characters that the model has no pieces for.",
    Flag.SPLIT: "A sentence was longer than the model's limit and was translated in parts.",
    Flag.TRUNCATED: "The translation stopped at the length limit.",
}

TranslationFlag = graphene.Enum.from_enum(
    Flag,
    name="TranslationFlag",
    description=lambda flag: FLAGS[flag] if flag else "What a reader of a translation should know about it.",
)
ErrorCode = graphene.Enum.from_enum(
    Code,
    name="ErrorCode",
    description=lambda code: None if code else "Why a text or a request has no translation.",
)


READINESS = {
    Readiness.READY: "It is in some worker's memory.",
    Readiness.ON_DEMAND: "A worker loads it when it is asked for, which takes a moment.",
    Readiness.UNSERVED: "No worker takes its queue: a request would wait for one.",
    Readiness.UNKNOWN: "The broker does not answer, or none is used.",
}
ReadinessType = graphene.Enum.from_enum(
    Readiness,
    description=lambda readiness: READINESS[readiness] if readiness else "What becomes of a request for a model now.",
)


class TranslateInput(graphene.InputObjectType):
    """What to translate."""

    texts = graphene.List(graphene.NonNull(graphene.String), required=True)
    source = graphene.String(description="May be left out where one language alone leads to the target.")
    target = graphene.String(required=True)
    model = graphene.String(description="May be left out: the first that fits is taken, or two that fit together.")
    timeout = graphene.Float(default_value=DEFAULT_TIMEOUT, description="Seconds until the answer is no longer wanted.")
    idempotency_key = graphene.String(
        description="Sent again with the same input, it gets the first answer for 24 hours."
    )


class TranslationError(graphene.ObjectType):
    """A text's own trouble."""

    code = graphene.Field(ErrorCode, required=True)
    message = graphene.String(required=True)


class TranslatedSentence(graphene.ObjectType):
    """What the model saw of a text, and what it made of it: both occur in text and translation, character by character.

    What no sentence covers was not translated: white space, bullets, addresses, numbers.
    """

    source = graphene.String(required=True)
    text = graphene.String(required=True)
    score = graphene.Float(required=True, description="Mean log-probability per target token, added up over models.")
    flags = graphene.List(graphene.NonNull(TranslationFlag), required=True)


class Translation(graphene.ObjectType):
    """What became of one text: a translation, or an error."""

    text = graphene.String()
    score = graphene.Float(
        description="Mean log-probability per target token, added up over models; null for a blank text."
    )
    flags = graphene.List(graphene.NonNull(TranslationFlag), required=True)
    sentences = graphene.List(graphene.NonNull(TranslatedSentence), required=True, description="In order.")
    error = graphene.Field(TranslationError)


class TranslatePayload(graphene.ObjectType):
    """One translation per text, in order. A text that fails does not spoil the others."""

    request_id = graphene.ID(required=True)
    model = graphene.String(required=True)
    version = graphene.String(description="Of the model's weights.")
    via = graphene.List(
        graphene.NonNull(graphene.String),
        required=True,
        description="The languages in between, where no model translates directly; none where one does.",
    )
    translations = graphene.List(graphene.NonNull(Translation), required=True)


class CancelPayload(graphene.ObjectType):
    """What became of a request to cancel another."""

    cancelled = graphene.Boolean(required=True, description="Whether that one was in flight, and is ended now.")


class LanguagePair(graphene.ObjectType):
    """A direction to translate in: by any of the models or, through other languages, by all, one after the other."""

    source = graphene.String(required=True)
    target = graphene.String(required=True)
    models = graphene.List(graphene.NonNull(graphene.String), required=True)
    via = graphene.List(graphene.NonNull(graphene.String), required=True, description="The languages in between.")
    available = graphene.Boolean(
        required=True,
        description="Whether workers take what is sent now without naming a model; true where that is not known yet.",
    )


class Model(graphene.ObjectType):
    """A model on offer, in one of its directions."""

    name = graphene.String(required=True)
    source = graphene.String(required=True)
    target = graphene.String(required=True)
    version = graphene.String(description="Of its weights in most workers' memory; null where it is in none.")
    status = graphene.Field(ReadinessType, required=True)
    queue_depth = graphene.Int(
        description="Requests that wait for it, in all of its directions; null where they wait among those for others."
    )
    workers = graphene.Int(required=True, description="Those that have it in memory.")


class QueueStatus(graphene.ObjectType):
    """A queue of a model: the requests that wait in it, and the workers that take them."""

    name = graphene.String(required=True)
    depth = graphene.Int(required=True)
    workers = graphene.Int(required=True)


class ModelStatus(graphene.ObjectType):
    """A model that is warm, or on demand and in some worker's memory."""

    name = graphene.String(required=True)
    warm = graphene.Boolean(required=True)
    pairs = graphene.List(graphene.NonNull(LanguagePair), required=True)
    queues = graphene.List(
        graphene.NonNull(QueueStatus),
        required=True,
        description="Interactive work, bulk, suspects: its own, so none of a model on demand.",
    )


class OnDemandStatus(graphene.ObjectType):
    """All models on demand together, in memory or not."""

    models = graphene.Int(required=True, description="How many are on offer.")
    queues = graphene.List(
        graphene.NonNull(QueueStatus), required=True, description="Interactive work, bulk, suspects: what they share."
    )


class LoadedModel(graphene.ObjectType):
    """A model in a worker's memory."""

    name = graphene.String(required=True)
    version = graphene.String(required=True, description="Of the model's weights.")
    device = graphene.String(required=True)
    bytes = graphene.Field(graphene.BigInt, required=True, description="Of the device's memory, about.")
    warm = graphene.Boolean(required=True, description="Whether it stays there.")


class WorkerStatus(graphene.ObjectType):
    """A worker that answers."""

    name = graphene.String(required=True)
    models = graphene.List(graphene.NonNull(LoadedModel), required=True)
    active = graphene.Int(required=True, description="Requests that it holds.")
    processed = graphene.Int(required=True, description="Requests that it has answered.")
    uptime = graphene.Float(required=True, description="Seconds since it started.")
    hits = graphene.Int(required=True, description="Requests that found their model in memory.")
    loads = graphene.Int(required=True, description="Models that it has loaded.")
    evictions = graphene.Int(required=True, description="Models that went from memory to make room.")
    memory = graphene.Field(
        graphene.BigInt, description="Bytes that it has of its machine's; null from a worker of an earlier release."
    )
    gpu_memory = graphene.Field(
        graphene.BigInt, description="Bytes that it holds of its GPU's; null where it uses none."
    )


class ErrorStatus(graphene.ObjectType):
    """How often callers were told a code in the last hour, for a request or for a text."""

    code = graphene.Field(ErrorCode, required=True)
    count = graphene.Int(required=True)
    last = graphene.DateTime(required=True)
    request_id = graphene.ID(required=True, description="Of the last one: the log knows more.")

    @staticmethod
    def resolve_last(error: ErrorCount, _info: GraphQLResolveInfo) -> datetime:
        return datetime.fromtimestamp(error.last, UTC)


class ServiceStatus(graphene.ObjectType):
    """What the service does at this moment, about a second old at most."""

    broker = graphene.Boolean(description="Whether it answers; null where none is used. Without it little is known.")
    models = graphene.List(graphene.NonNull(ModelStatus), required=True)
    on_demand = graphene.Field(OnDemandStatus, description="Null where no model is on demand.")
    workers = graphene.List(graphene.NonNull(WorkerStatus), required=True)
    dead_letters = graphene.Int(description="Messages that no worker could take or bear, kept for a look.")
    errors = graphene.List(graphene.NonNull(ErrorStatus), required=True)


class Usage(graphene.ObjectType):
    """What was translated today under the API key that asks."""

    characters = graphene.Field(graphene.BigInt, required=True)
    limit = graphene.Field(graphene.BigInt, description="Characters a day; null where there is no limit.")
    resets_at = graphene.DateTime(required=True)


class Query(graphene.ObjectType):
    """What can be translated, and how the service does."""

    languages = graphene.List(graphene.NonNull(LanguagePair), required=True)
    models = graphene.List(
        graphene.NonNull(Model), required=True, description="Each in each of its directions, a second ago at most."
    )
    status = graphene.Field(ServiceStatus, required=True)
    usage = graphene.Field(Usage, description="Null where no API key is needed and none was sent.")

    @staticmethod
    def resolve_languages(_root: None, info: GraphQLResolveInfo) -> list[LanguagePair]:
        context: Context = info.context
        status = context.translator.known_status()
        return [_language_pair(way, context.registry, status) for way in context.registry.ways]

    @staticmethod
    def resolve_models(_root: None, info: GraphQLResolveInfo) -> list[Model]:
        context: Context = info.context
        auth.demand(context.key, Scope.TRANSLATE)
        status = context.translator.status()
        return [model for entry in context.registry.models.values() for model in _directions(entry, status)]

    @staticmethod
    def resolve_status(_root: None, info: GraphQLResolveInfo) -> ServiceStatus:
        auth.demand(info.context.key, Scope.STATUS)
        status, registry = info.context.translator.status(), info.context.registry
        on_demand = sum(not entry.warm for entry in registry.models.values())
        return ServiceStatus(
            broker=status.broker,
            models=[
                _model_status(entry, registry, status)
                for entry in registry.models.values()
                if entry.warm or entry.name in status.holders
            ],
            on_demand=OnDemandStatus(models=on_demand, queues=status.shared_queues()) if on_demand else None,
            workers=[{"name": name, **worker.encode()} for name, worker in status.workers.items()],
            dead_letters=status.dead_letters,
            errors=status.errors,
        )

    @staticmethod
    def resolve_usage(_root: None, info: GraphQLResolveInfo) -> Usage | None:
        context: Context = info.context
        if context.key is None:
            return None
        used = context.accounts.used(context.key)
        return Usage(
            characters=used.characters, limit=used.limit, resets_at=datetime.fromtimestamp(used.resets_at, UTC)
        )


class Mutation(graphene.ObjectType):
    """A translation costs, and may differ from call to call: it is a mutation."""

    translate = graphene.Field(TranslatePayload, required=True, input=graphene.Argument(TranslateInput, required=True))

    cancel_translation = graphene.Field(
        CancelPayload,
        required=True,
        request_id=graphene.ID(required=True),
        description="Ends a translation of the same caller, who sent its id as the header X-Request-Id.",
    )

    @staticmethod
    def resolve_translate(_root: None, info: GraphQLResolveInfo, *, input: Any) -> TranslatePayload:
        timeout = DEFAULT_TIMEOUT if input.timeout is None else input.timeout
        context: Context = info.context
        payload = translate(
            context,
            input.texts,
            source=input.source,
            target=input.target,
            model=input.model,
            timeout=timeout,
            idempotency_key=input.idempotency_key,
        )
        for translation in payload.translations:
            if translation.error is not None:
                context.translator.told(translation.error.code, context.request_id)
        return payload

    @staticmethod
    def resolve_cancel_translation(_root: None, info: GraphQLResolveInfo, *, request_id: str) -> CancelPayload:
        context: Context = info.context
        auth.demand(context.key, Scope.TRANSLATE)
        if not REQUEST_ID.fullmatch(request_id):  # no request has it
            return CancelPayload(cancelled=False)
        return CancelPayload(cancelled=context.translator.cancel(request_id.lower(), context.principal))


def translate(
    context: Context,
    texts: Sequence[str],
    *,
    source: str | None,
    target: str,
    model: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    idempotency_key: str | None = None,
) -> TranslatePayload:
    """The texts within the limits, translated; a failure for each of the others. Raises TolkError."""
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
    results = [next(translated) if failure is None else TextResult(error=failure) for failure in failures]
    tracing.annotate(failed=sum(result.error is not None for result in results) or None)
    _log_texts(context, "gets", [result.text for result in results])
    return TranslatePayload(
        request_id=answer.request_id,
        model=reply.model,
        version=reply.version,
        via=reply.via,
        translations=[_translation(text, result) for text, result in zip(texts, results, strict=True)],
    )


def _log_texts(context: Context, what: str, texts: Sequence[str | None]) -> None:
    """The one place that logs texts, where somebody wanted that."""
    if context.settings.log_texts:
        log.info("Request %s %s: %r", context.request_id, what, texts)


def _language_pair(way: Way, registry: Registry, status: Status) -> LanguagePair:
    return LanguagePair(**way._asdict(), available=status.can_translate(way, registry))


def _directions(entry: Entry, status: Status) -> list[Model]:
    known = {
        "version": status.version(entry),
        "status": status.readiness(entry),
        "queue_depth": status.depth(entry),
        "workers": len(status.holders.get(entry.name, ())),
    }
    return [Model(name=entry.name, source=pair.source, target=pair.target, **known) for pair in entry.pairs]


def _model_status(entry: Entry, registry: Registry, status: Status) -> ModelStatus:
    ways = [Way(pair.source, pair.target, (entry.name,)) for pair in entry.pairs]
    return ModelStatus(
        name=entry.name,
        warm=entry.warm,
        pairs=[_language_pair(way, registry, status) for way in ways],
        queues=status.own_queues(entry),
    )


def _translation(source: str, result: TextResult) -> Translation:
    target = result.text or ""
    return Translation(
        text=result.text,
        score=result.score,
        flags=result.flags,
        sentences=[
            TranslatedSentence(
                source=source[slice(*sentence.source)],
                text=target[slice(*sentence.target)],
                score=sentence.score,
                flags=sentence.flags,
            )
            for sentence in result.sentences
        ],
        error=result.error,
    )


def build_schema() -> graphene.Schema:
    """The schema; its resolvers expect a Context."""
    return graphene.Schema(query=Query, mutation=Mutation)
