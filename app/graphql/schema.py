"""The GraphQL schema: its roots, put together."""

from __future__ import annotations

import graphene

from app.graphql.models import LanguagePair, ModelType, resolve_languages, resolve_models
from app.graphql.service import ServiceStatus, resolve_status
from app.graphql.translations import (
    CancelPayload,
    TranslateInput,
    TranslatePayload,
    resolve_cancel_translation,
    resolve_translate,
)
from app.graphql.usage import UsageType, resolve_usage


class Query(graphene.ObjectType):
    """What can be translated, and how the service does."""

    languages = graphene.Field(
        graphene.List(graphene.NonNull(LanguagePair)),
        required=True,
        resolver=resolve_languages,
        description="All directions in which texts can be translated.",
    )
    models = graphene.Field(
        graphene.List(graphene.NonNull(ModelType)),
        required=True,
        resolver=resolve_models,
        description="Each in each of its directions, a second ago at most.",
    )
    status = graphene.Field(
        ServiceStatus, required=True, resolver=resolve_status, description="For operators: queues, workers, errors."
    )
    usage = graphene.Field(
        UsageType, resolver=resolve_usage, description="Null where no API key is needed and none was sent."
    )


class Mutation(graphene.ObjectType):
    """A translation costs, and may differ from call to call: it is a mutation."""

    translate = graphene.Field(
        TranslatePayload,
        required=True,
        input=graphene.Argument(TranslateInput, required=True, description="The texts, and the languages."),
        resolver=resolve_translate,
        description="Translates texts from one language into another.",
    )
    cancel_translation = graphene.Field(
        CancelPayload,
        required=True,
        request_id=graphene.ID(required=True, description="The id that the translation was sent with."),
        resolver=resolve_cancel_translation,
        description="Ends a translation of the same caller, who sent its id as the header X-Request-Id.",
    )


def build_schema() -> graphene.Schema:
    """The schema; its resolvers expect a Context."""
    return graphene.Schema(query=Query, mutation=Mutation)
