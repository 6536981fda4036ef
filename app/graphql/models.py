"""The GraphQL queries `languages` and `models`."""

from __future__ import annotations

import graphene
from graphql import GraphQLResolveInfo

from app.accounts import auth
from app.accounts.keys import Scope
from app.monitoring.status import Readiness, Status
from app.translation.context import Context
from tasks.registry.entry import Entry
from tasks.registry.ways import Registry, Way

READINESS = {
    Readiness.READY: "The model is in the memory of at least one worker.",
    Readiness.ON_DEMAND: "A worker loads the model at the next request for it, which takes a moment.",
    Readiness.FAILED: "A worker could not load the model. The status of the service says why.",
    Readiness.UNSERVED: "No worker takes requests for the model. A request would wait for one.",
    Readiness.UNKNOWN: "The message broker does not answer, or the service runs without one.",
}
ReadinessType = graphene.Enum.from_enum(
    Readiness,
    description=lambda readiness: READINESS[readiness] if readiness else "Whether workers can serve a model now.",
)


class LanguagePair(graphene.ObjectType):
    """A pair of languages that texts can be translated between, by one of `models` or, if `via` names languages in
    between, by all of `models` in turn."""

    source = graphene.String(required=True, description="The language of the texts.")
    target = graphene.String(required=True, description="The language of the translations.")
    models = graphene.List(graphene.NonNull(graphene.String), required=True, description="The names of the models.")
    via = graphene.List(
        graphene.NonNull(graphene.String),
        required=True,
        description="The languages in between, in order; empty if a model translates directly.",
    )
    available = graphene.Boolean(
        required=True,
        description="Whether workers serve requests for this pair that name no model; true while that is unknown.",
    )


class ModelType(graphene.ObjectType):
    """A model, in one of its language pairs."""

    class Meta:
        name = "Model"

    name = graphene.String(required=True, description="The name by which requests choose the model.")
    source = graphene.String(required=True, description="The language that the model translates from.")
    target = graphene.String(required=True, description="The language that the model translates into.")
    version = graphene.String(description="The version of its weights in most workers; null if it is in none.")
    status = graphene.Field(ReadinessType, required=True, description="Whether workers can serve it now.")
    queue_depth = graphene.Int(
        description="Messages that wait for it, each with up to 16 requests; null if other models share its queue."
    )
    workers = graphene.Int(required=True, description="The number of workers that have it in memory.")


def resolve_languages(_root: None, info: GraphQLResolveInfo) -> list[LanguagePair]:
    context: Context = info.context
    status = context.translator.known_status()
    return [language_pair(way, context.registry, status) for way in context.registry.ways]


def resolve_models(_root: None, info: GraphQLResolveInfo) -> list[ModelType]:
    context: Context = info.context
    auth.demand(context.key, Scope.TRANSLATE)
    status = context.translator.status()
    return [model for entry in context.registry.models.values() for model in _directions(entry, status)]


def language_pair(way: Way, registry: Registry, status: Status) -> LanguagePair:
    """The API's form of a way; `status` tells whether it is available."""
    return LanguagePair(**way._asdict(), available=status.can_translate(way, registry))


def _directions(entry: Entry, status: Status) -> list[ModelType]:
    known = {
        "version": status.version(entry),
        "status": status.readiness(entry),
        "queue_depth": status.depth(entry),
        "workers": len(status.holders.get(entry.name, ())),
    }
    return [ModelType(name=entry.name, source=pair.source, target=pair.target, **known) for pair in entry.pairs]
