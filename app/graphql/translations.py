"""GraphQL: translate, cancelTranslation."""

from __future__ import annotations

from typing import Any

import graphene
from graphql import GraphQLResolveInfo

from app.settings import DEFAULT_TIMEOUT
from app.translation.context import Context
from app.translation.translate import cancel, translate
from tasks.contract.errors import Code
from tasks.contract.reply import Flag, TextResult

FLAGS = {
    Flag.REPETITION: "The model ran away repeating itself: this is a second try, or was shortened.",
    Flag.UNKNOWN_TOKENS: "The text holds characters that the model has no pieces for.",
    Flag.SPLIT: "A sentence was longer than the model's limit and was translated in parts.",
    Flag.TRUNCATED: "The translation stopped at the length limit.",
}
CODES = {
    Code.BAD_INPUT: "The request cannot be served as it is; the message says what to change.",
    Code.UNKNOWN_MODEL: "There is no such model, or none for these languages; the message says what there is.",
    Code.UNAUTHENTICATED: "An API key is needed, or the one that came is wrong or was revoked.",
    Code.FORBIDDEN: "The API key lacks the scope, or a page of another site sent the request.",
    Code.RATE_LIMITED: "The API key's requests a minute, or its characters a day, are used up.",
    Code.OVERLOADED: "Too many requests wait already: this one would not be answered in time.",
    Code.TIMEOUT: "The timeout passed before the translation was complete.",
    Code.CANCELLED: "Somebody cancelled the request.",
    Code.UNAVAILABLE: "The message broker, every worker, or the database does not answer.",
    Code.INTERNAL: "The service is at fault; its log has the error under the request's id.",
}

TranslationFlag = graphene.Enum.from_enum(
    Flag,
    name="TranslationFlag",
    description=lambda flag: FLAGS[flag] if flag else "What a reader of a translation should know about it.",
)
ErrorCode = graphene.Enum.from_enum(
    Code,
    name="ErrorCode",
    description=lambda code: CODES[code] if code else "Why a text or a request has no translation.",
)


class TranslateInput(graphene.InputObjectType):
    """What to translate."""

    texts = graphene.List(
        graphene.NonNull(graphene.String),
        required=True,
        description="Each has any number of sentences; its layout stays. The answer has a translation for each.",
    )
    source = graphene.String(
        description="The texts' language. May be left out where one language alone leads to the target."
    )
    target = graphene.String(required=True, description="The language to translate into.")
    model = graphene.String(description="May be left out: the first that fits is taken, or two that fit together.")
    timeout = graphene.Float(default_value=DEFAULT_TIMEOUT, description="Seconds until the answer is no longer wanted.")
    idempotency_key = graphene.String(
        description="Sent again with the same input, it gets the first answer for 24 hours."
    )


class TranslationError(graphene.ObjectType):
    """A text's own trouble."""

    code = graphene.Field(ErrorCode, required=True, description="For programs.")
    message = graphene.String(required=True, description="For people: what is wrong, and what to do about it.")


class TranslatedSentence(graphene.ObjectType):
    """What the model saw of a text, and what it made of it: both occur in text and translation, character by character.

    What no sentence covers was not translated: white space, bullets, addresses, numbers.
    """

    source = graphene.String(required=True, description="The sentence, as it stands in the text.")
    text = graphene.String(required=True, description="Its translation, as it stands in the text's translation.")
    score = graphene.Float(required=True, description="Mean log-probability per target token, added up over models.")
    flags = graphene.List(
        graphene.NonNull(TranslationFlag), required=True, description="What a reader should know about this sentence."
    )


class TranslationType(graphene.ObjectType):
    """What became of one text: a translation, or an error."""

    class Meta:
        name = "Translation"

    text = graphene.String(description="The translation; null where there is an error.")
    score = graphene.Float(
        description="Mean log-probability per target token, added up over models; null for a blank text."
    )
    flags = graphene.List(
        graphene.NonNull(TranslationFlag), required=True, description="Those of all of its sentences."
    )
    sentences = graphene.List(graphene.NonNull(TranslatedSentence), required=True, description="In order.")
    error = graphene.Field(TranslationError, description="Why there is no translation; null where there is one.")


class TranslatePayload(graphene.ObjectType):
    """One translation per text, in order. A text that fails does not spoil the others."""

    request_id = graphene.ID(
        required=True, description="The request's id; of a repeat, that of the request that was answered first."
    )
    model = graphene.String(required=True, description="The model that translated, or two, joined by a plus sign.")
    version = graphene.String(description="Of the model's weights.")
    via = graphene.List(
        graphene.NonNull(graphene.String),
        required=True,
        description="The languages in between, where no model translates directly; none where one does.",
    )
    translations = graphene.List(
        graphene.NonNull(TranslationType), required=True, description="One for each text, in the order of the texts."
    )


class CancelPayload(graphene.ObjectType):
    """What became of a request to cancel another."""

    cancelled = graphene.Boolean(required=True, description="Whether that one was in flight, and is ended now.")


def resolve_translate(_root: None, info: GraphQLResolveInfo, *, input: Any) -> TranslatePayload:
    context: Context = info.context
    answer = translate(
        context,
        input.texts,
        source=input.source,
        target=input.target,
        model=input.model,
        timeout=DEFAULT_TIMEOUT if input.timeout is None else input.timeout,
        idempotency_key=input.idempotency_key,
    )
    for result in answer.results:
        if result.error is not None:
            context.recent_errors.add(result.error.code, context.request_id)
    return TranslatePayload(
        request_id=answer.request_id,
        model=answer.model,
        version=answer.version,
        via=answer.via,
        translations=[_translation(text, result) for text, result in zip(answer.texts, answer.results, strict=True)],
    )


def resolve_cancel_translation(_root: None, info: GraphQLResolveInfo, *, request_id: str) -> CancelPayload:
    return CancelPayload(cancelled=cancel(info.context, request_id))


def _translation(source: str, result: TextResult) -> TranslationType:
    target = result.text or ""
    return TranslationType(
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
