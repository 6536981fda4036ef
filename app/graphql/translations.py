"""The GraphQL mutations `translate` and `cancelTranslation`."""

from __future__ import annotations

from typing import Any

import graphene
from graphql import GraphQLResolveInfo

from app.settings import DEFAULT_TIMEOUT
from app.translation.context import Context
from app.translation.outcome import Origin
from app.translation.translate import cancel, translate
from tasks.contract.errors import Code
from tasks.contract.reply import Flag, TextResult
from tasks.contract.request import Holds, Lines

FLAGS = {
    Flag.REPETITION: "The model kept repeating itself. The translation is a second attempt, or was shortened.",
    Flag.UNKNOWN_TOKENS: "The text has characters that the model does not know.",
    Flag.SPLIT: "A sentence was translated in parts: it was too long for the model, or lost what has to be kept.",
    Flag.TRUNCATED: "The translation stopped at the length limit.",
    Flag.NUMBER_MISMATCH: "The translation lacks a number of the text, or has one that the text does not have.",
    Flag.SOURCE_KEPT: "A sentence is not translated, because its translation lost what has to be kept.",
}
CODES = {
    Code.BAD_INPUT: "The request is invalid. The message says what to change.",
    Code.UNSUPPORTED_SOURCE: "The text is in a language that no model translates from. The message names it.",
    Code.UNKNOWN_MODEL: "There is no such model, or none for these languages. The message says what is available.",
    Code.UNAUTHENTICATED: "An API key is needed, or the one that was sent is wrong or was revoked.",
    Code.FORBIDDEN: "The API key lacks the scope, or a page of another site sent the request.",
    Code.RATE_LIMITED: "The API key's requests a minute, or its characters a day, are used up.",
    Code.OVERLOADED: "Too many requests wait already: this one would not be answered in time.",
    Code.TIMEOUT: "The timeout passed before the translation was complete.",
    Code.CANCELLED: "The request was cancelled.",
    Code.UNAVAILABLE: "The message broker, every worker, or the database does not answer.",
    Code.INTERNAL: "The service failed. Its log has the error under the request's id.",
}

LINES = {
    Lines.KEEP: "Every line break ends a sentence, and stays.",
    Lines.JOIN: "The lines of a paragraph are joined, as hard-wrapped text needs it. Breaks between sentences stay.",
}

HOLDS = {
    Holds.AUTO: "Placeholders, tags, addresses, code, file names and versions that no ordinary text has by chance.",
    Holds.OFF: "Nothing but what `preserve` names.",
    Holds.PRINTF: "AUTO, and all of printf: `%%` and blank flags, too.",
    Holds.QT: "AUTO, and `%1`, `%L1`, `%n`.",
    Holds.SHELL: "AUTO, and `$x`.",
    Holds.TEX: "AUTO, and commands and formulas of TeX.",
    Holds.WIKI: "AUTO, and links and templates of wikis.",
    Holds.BBCODE: "AUTO, and tags in square brackets.",
}

TranslationFlag = graphene.Enum.from_enum(
    Flag,
    name="TranslationFlag",
    description=lambda flag: FLAGS[flag] if flag else "A doubt about a translation that its reader should know of.",
)
ErrorCode = graphene.Enum.from_enum(
    Code,
    name="ErrorCode",
    description=lambda code: CODES[code] if code else "The reason why a text or a request has no translation.",
)


LinesType = graphene.Enum.from_enum(
    Lines,
    description=lambda lines: LINES[lines] if lines else "What becomes of the line breaks in a text.",
)


HoldsType = graphene.Enum.from_enum(
    Holds,
    description=lambda holds: HOLDS[holds] if holds else "What of a text comes through exactly as it is.",
)


class TranslateInput(graphene.InputObjectType):
    """The texts to translate, and how."""

    texts = graphene.List(
        graphene.NonNull(graphene.String),
        required=True,
        description="The texts, each of any number of sentences. A translation keeps its text's layout.",
    )
    source = graphene.String(
        description="The language of the texts, a tag of BCP 47. If left out, each text's language is detected."
    )
    target = graphene.String(required=True, description="The language to translate into, a tag of BCP 47.")
    model = graphene.String(
        description="A model's name. If left out, the first model that fits is used, or two in turn."
    )
    assume = graphene.String(
        description="The language of texts of which none can be detected, or none that is on offer."
    )
    nbest = graphene.Int(
        default_value=1, description="How many translations of each text are wanted, the alternatives included."
    )
    lines = LinesType(default_value=Lines.KEEP, description="What becomes of the line breaks in a text.")
    holds = HoldsType(default_value=Holds.AUTO, description="What of the texts comes through exactly as it is.")
    preserve = graphene.List(
        graphene.NonNull(graphene.String),
        description="Words and phrases that stay as they are, too, where they stand as whole words in this spelling.",
    )
    timeout = graphene.Float(
        default_value=DEFAULT_TIMEOUT, description="Seconds after which the answer is no longer wanted."
    )
    idempotency_key = graphene.String(
        description="A unique key, such as a UUID: for 24 hours, the same key and input get the first answer."
    )


class TranslationError(graphene.ObjectType):
    """The error of one text."""

    code = graphene.Field(ErrorCode, required=True, description="The kind of error, for programs.")
    message = graphene.String(required=True, description="What is wrong and what to do about it, for people.")


class AlternativeType(graphene.ObjectType):
    """Another translation of the same text. If the text has several sentences, it differs in one of them."""

    class Meta:
        name = "Alternative"

    text = graphene.String(required=True, description="The translation.")
    score = graphene.Float(
        required=True, description="Mean log-probability per target token; over several models, the sum."
    )


class DetectedSource(graphene.ObjectType):
    """How certain it is that a text is in the language that was detected."""

    confidence = graphene.Float(required=True, description="The probability of the language; 0 if there is none.")
    from_neighbours = graphene.Boolean(
        required=True, description="Whether the text is too short to tell, so that the texts beside it decided."
    )


class TranslatedSentence(graphene.ObjectType):
    """A sentence and its translation, exactly as they stand in the text and in the text's translation.

    Parts of a text that are in no sentence were not translated: white space, bullets, addresses, numbers.
    """

    source = graphene.String(required=True, description="The sentence, as it stands in the text.")
    text = graphene.String(required=True, description="Its translation, as it stands in the text's translation.")
    score = graphene.Float(
        required=True, description="Mean log-probability per target token; over several models, the sum."
    )
    flags = graphene.List(
        graphene.NonNull(TranslationFlag), required=True, description="What a reader should know about this sentence."
    )


class TranslationType(graphene.ObjectType):
    """The result for one text: a translation, or an error."""

    class Meta:
        name = "Translation"

    text = graphene.String(description="The translation; null if there is an error.")
    score = graphene.Float(
        description="Mean log-probability per target token; over several models, the sum. Null for a blank text."
    )
    flags = graphene.List(
        graphene.NonNull(TranslationFlag), required=True, description="The flags of all of its sentences."
    )
    sentences = graphene.List(
        graphene.NonNull(TranslatedSentence), required=True, description="The sentences of the text, in order."
    )
    alternatives = graphene.List(
        graphene.NonNull(AlternativeType),
        required=True,
        description="Other translations, the likeliest first, as far as `nbest` asks for them.",
    )
    source = graphene.String(
        description="The language of the text; null if it has no letters. A text that is in the target language "
        "already stays as it is."
    )
    model = graphene.String(description="The model that translated it, as in the payload; null if none was asked.")
    version = graphene.String(description="The version of the model's weights.")
    via = graphene.List(graphene.NonNull(graphene.String), required=True, description="The languages in between.")
    detected = graphene.Field(DetectedSource, description="How `source` was detected; null if it was not.")
    error = graphene.Field(TranslationError, description="Why there is no translation; null if there is one.")


class TranslatePayload(graphene.ObjectType):
    """One translation for each text, in order. A text that fails does not affect the others."""

    request_id = graphene.ID(
        required=True,
        description="The request's id. If it repeats a request by its idempotency key, the id of the first one.",
    )
    source = graphene.String(
        description="The language of the texts, as it was understood; null if they are in several languages."
    )
    target = graphene.String(required=True, description="The language of the translations, as it was understood.")
    model = graphene.String(
        required=True,
        description="The model's name, or two names with a plus sign if two translated in turn. "
        "With commas, the names for texts in several languages.",
    )
    version = graphene.String(description="The version of the model's weights, or several, joined like the names.")
    via = graphene.List(
        graphene.NonNull(graphene.String),
        required=True,
        description="The languages in between, in order; empty if a model translated directly, "
        "and for texts in several languages.",
    )
    translations = graphene.List(
        graphene.NonNull(TranslationType), required=True, description="One for each text, in the order of the texts."
    )


class CancelPayload(graphene.ObjectType):
    """The result of cancelling a translation."""

    cancelled = graphene.Boolean(
        required=True, description="Whether the translation was in flight and is now cancelled."
    )


def resolve_translate(_root: None, info: GraphQLResolveInfo, *, input: Any) -> TranslatePayload:
    context: Context = info.context
    answer = translate(
        context,
        input.texts,
        source=input.source,
        target=input.target,
        model=input.model,
        assume=input.assume,
        nbest=1 if input.nbest is None else input.nbest,
        lines=input.lines or Lines.KEEP,
        holds=input.holds or Holds.AUTO,
        preserve=input.preserve or (),
        timeout=DEFAULT_TIMEOUT if input.timeout is None else input.timeout,
        idempotency_key=input.idempotency_key,
    )
    for result in answer.results:
        if result.error is not None:
            context.recent_errors.add(result.error.code, context.request_id)
    return TranslatePayload(
        request_id=answer.request_id,
        source=answer.source,
        target=answer.target,
        model=answer.model,
        version=answer.version,
        via=answer.via,
        translations=[
            translation_type(*each) for each in zip(answer.texts, answer.results, answer.origins, strict=True)
        ],
    )


def resolve_cancel_translation(_root: None, info: GraphQLResolveInfo, *, request_id: str) -> CancelPayload:
    return CancelPayload(cancelled=cancel(info.context, request_id))


def translation_type(source: str, result: TextResult, origin: Origin) -> TranslationType:
    """The result for the text `source` as the API has it."""
    target = result.text or ""
    return TranslationType(
        text=result.text,
        score=result.score,
        flags=result.flags,
        alternatives=result.alternatives,
        source=origin.source,
        model=origin.model,
        version=origin.version,
        via=origin.via,
        detected=None
        if origin.confidence is None
        else DetectedSource(confidence=origin.confidence, from_neighbours=origin.from_neighbours),
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
