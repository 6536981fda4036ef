"""GraphQL: status."""

from __future__ import annotations

from datetime import UTC, datetime

import graphene
from graphql import GraphQLResolveInfo

from app.accounts import auth
from app.accounts.keys import Scope
from app.graphql.models import LanguagePair, language_pair
from app.graphql.translations import ErrorCode
from app.monitoring.recent_errors import ErrorCount, total
from app.monitoring.status import Status
from app.translation.context import Context
from tasks.registry.entry import Entry
from tasks.registry.ways import Registry, Way


class QueueStatusType(graphene.ObjectType):
    """A queue of a model: the requests that wait in it, and the workers that take them."""

    class Meta:
        name = "QueueStatus"

    name = graphene.String(required=True, description="As RabbitMQ calls it.")
    depth = graphene.Int(required=True, description="Requests that wait in it.")
    workers = graphene.Int(required=True, description="Workers that take its requests.")


class ModelStatus(graphene.ObjectType):
    """A model that is warm, or on demand and in some worker's memory."""

    name = graphene.String(required=True, description="To ask for it by.")
    warm = graphene.Boolean(required=True, description="Whether it is always in memory; otherwise it is on demand.")
    pairs = graphene.List(graphene.NonNull(LanguagePair), required=True, description="Its directions.")
    queues = graphene.List(
        graphene.NonNull(QueueStatusType),
        required=True,
        description="Interactive work, bulk, suspects: its own, so none of a model on demand.",
    )


class OnDemandStatus(graphene.ObjectType):
    """All models on demand together, in memory or not."""

    models = graphene.Int(required=True, description="How many are on offer.")
    queues = graphene.List(
        graphene.NonNull(QueueStatusType),
        required=True,
        description="Interactive work, bulk, suspects: what they share.",
    )


class LoadedModelType(graphene.ObjectType):
    """A model in a worker's memory."""

    class Meta:
        name = "LoadedModel"

    name = graphene.String(required=True, description="To ask for it by.")
    version = graphene.String(required=True, description="Of the model's weights.")
    device = graphene.String(required=True, description="Where it computes: on the CPU, or on a GPU.")
    bytes = graphene.Field(graphene.BigInt, required=True, description="Of the device's memory, about.")
    warm = graphene.Boolean(required=True, description="Whether it stays there.")


class WorkerStatusType(graphene.ObjectType):
    """A worker that answers."""

    class Meta:
        name = "WorkerStatus"

    name = graphene.String(required=True, description="As Celery calls it.")
    models = graphene.List(graphene.NonNull(LoadedModelType), required=True, description="Those in its memory.")
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

    code = graphene.Field(ErrorCode, required=True, description="What they were told.")
    count = graphene.Int(required=True, description="How often, in all web processes together.")
    last = graphene.DateTime(required=True, description="When that happened last.")
    request_id = graphene.ID(required=True, description="Of the last one: the log knows more.")

    @staticmethod
    def resolve_last(error: ErrorCount, _info: GraphQLResolveInfo) -> datetime:
        return datetime.fromtimestamp(error.last, UTC)


class ServiceStatus(graphene.ObjectType):
    """What the service does at this moment, about a second old at most."""

    broker = graphene.Boolean(description="Whether it answers; null where none is used. Without it little is known.")
    models = graphene.List(
        graphene.NonNull(ModelStatus), required=True, description="The warm ones, and those in some worker's memory."
    )
    on_demand = graphene.Field(OnDemandStatus, description="Null where no model is on demand.")
    workers = graphene.List(graphene.NonNull(WorkerStatusType), required=True, description="Those that answer.")
    dead_letters = graphene.Int(description="Messages that no worker could take or bear, kept for a look.")
    errors = graphene.List(
        graphene.NonNull(ErrorStatus), required=True, description="What callers were told of late, an entry per code."
    )


def resolve_status(_root: None, info: GraphQLResolveInfo) -> ServiceStatus:
    context: Context = info.context
    auth.demand(context.key, Scope.STATUS)
    status, registry = context.translator.status(), context.registry
    return ServiceStatus(
        broker=status.broker,
        models=[_model_status(entry, registry, status) for entry in status.listed(registry)],
        on_demand=_on_demand_status(registry, status),
        workers=[{"name": name, **worker.encode()} for name, worker in status.workers.items()],
        dead_letters=status.dead_letters,
        errors=total([*status.errors, *context.recent_errors.counts()]),
    )


def _model_status(entry: Entry, registry: Registry, status: Status) -> ModelStatus:
    ways = [Way(pair.source, pair.target, (entry.name,)) for pair in entry.pairs]
    return ModelStatus(
        name=entry.name,
        warm=entry.warm,
        pairs=[language_pair(way, registry, status) for way in ways],
        queues=status.own_queues(entry),
    )


def _on_demand_status(registry: Registry, status: Status) -> OnDemandStatus | None:
    on_demand = sum(not entry.warm for entry in registry.models.values())
    return OnDemandStatus(models=on_demand, queues=status.shared_queues()) if on_demand else None
