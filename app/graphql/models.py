"""GraphQL: languages, models."""

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
    Readiness.READY: "It is in some worker's memory.",
    Readiness.ON_DEMAND: "A worker loads it when it is asked for, which takes a moment.",
    Readiness.UNSERVED: "No worker takes its queue: a request would wait for one.",
    Readiness.UNKNOWN: "The broker does not answer, or none is used.",
}
ReadinessType = graphene.Enum.from_enum(
    Readiness,
    description=lambda readiness: READINESS[readiness] if readiness else "What becomes of a request for a model now.",
)


class LanguagePair(graphene.ObjectType):
    """A direction to translate in: by any of the models or, through other languages, by all, one after the other."""

    source = graphene.String(required=True, description="The language of the texts.")
    target = graphene.String(required=True, description="The language of their translations.")
    models = graphene.List(graphene.NonNull(graphene.String), required=True, description="Their names.")
    via = graphene.List(graphene.NonNull(graphene.String), required=True, description="The languages in between.")
    available = graphene.Boolean(
        required=True,
        description="Whether workers take what is sent now without naming a model; true where that is not known yet.",
    )


class ModelType(graphene.ObjectType):
    """A model on offer, in one of its directions."""

    class Meta:
        name = "Model"

    name = graphene.String(required=True, description="To ask for it by.")
    source = graphene.String(required=True, description="The language that it translates from.")
    target = graphene.String(required=True, description="The language that it translates into.")
    version = graphene.String(description="Of its weights in most workers' memory; null where it is in none.")
    status = graphene.Field(ReadinessType, required=True, description="What becomes of a request for it now.")
    queue_depth = graphene.Int(
        description="Requests that wait for it, in all of its directions; null where they wait among those for others."
    )
    workers = graphene.Int(required=True, description="Those that have it in memory.")


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
    """A way as the API shows it, available as far as the status tells."""
    return LanguagePair(**way._asdict(), available=status.can_translate(way, registry))


def _directions(entry: Entry, status: Status) -> list[ModelType]:
    known = {
        "version": status.version(entry),
        "status": status.readiness(entry),
        "queue_depth": status.depth(entry),
        "workers": len(status.holders.get(entry.name, ())),
    }
    return [ModelType(name=entry.name, source=pair.source, target=pair.target, **known) for pair in entry.pairs]
