"""The GraphQL query `status`."""

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
    """A queue of a model: the messages that wait in it, and the workers that take them."""

    class Meta:
        name = "QueueStatus"

    name = graphene.String(required=True, description="Its name in RabbitMQ.")
    depth = graphene.Int(required=True, description="Messages that wait in it, each with up to 16 requests.")
    workers = graphene.Int(required=True, description="Workers that take its requests.")


class ModelStatus(graphene.ObjectType):
    """A model that is warm, or that is on demand and in the memory of at least one worker."""

    name = graphene.String(required=True, description="The name by which requests choose the model.")
    warm = graphene.Boolean(required=True, description="Whether it is always in memory; otherwise it is on demand.")
    pairs = graphene.List(graphene.NonNull(LanguagePair), required=True, description="Its language pairs.")
    queues = graphene.List(
        graphene.NonNull(QueueStatusType),
        required=True,
        description="Its queues, for interactive work, bulk work and suspects; empty for a model on demand.",
    )
    problem = graphene.String(
        description="Why a worker could not load it when it last tried; null if none has failed since."
    )


class OnDemandStatus(graphene.ObjectType):
    """All models on demand together, whether they are in memory or not."""

    models = graphene.Int(required=True, description="The number of models on demand.")
    queues = graphene.List(
        graphene.NonNull(QueueStatusType),
        required=True,
        description="The queues that they share, for interactive work, bulk work and suspects.",
    )


class LoadedModelType(graphene.ObjectType):
    """A model in a worker's memory."""

    class Meta:
        name = "LoadedModel"

    name = graphene.String(required=True, description="The name by which requests choose the model.")
    version = graphene.String(required=True, description="The version of the model's weights.")
    device = graphene.String(required=True, description="The device that it runs on: the CPU, or a GPU.")
    bytes = graphene.Field(
        graphene.BigInt, required=True, description="About how many bytes of the device's memory it takes."
    )
    warm = graphene.Boolean(required=True, description="Whether it stays in memory.")


class WorkerStatusType(graphene.ObjectType):
    """A worker that answered when it was asked for its status."""

    class Meta:
        name = "WorkerStatus"

    name = graphene.String(required=True, description="Its name in Celery.")
    models = graphene.List(graphene.NonNull(LoadedModelType), required=True, description="The models in its memory.")
    active = graphene.Int(required=True, description="Requests that it has taken and not yet answered.")
    processed = graphene.Int(required=True, description="Requests that it has answered.")
    uptime = graphene.Float(required=True, description="Seconds since it started.")
    hits = graphene.Int(required=True, description="Requests that found their model in memory.")
    loads = graphene.Int(required=True, description="Models that it has loaded.")
    evictions = graphene.Int(
        required=True, description="Models that it has removed from memory to make room for others."
    )
    memory = graphene.Field(
        graphene.BigInt, description="Bytes of memory that it uses; null for a worker of an earlier release."
    )
    gpu_memory = graphene.Field(
        graphene.BigInt, description="Bytes of GPU memory that it uses; null if it uses no GPU."
    )


class ErrorStatus(graphene.ObjectType):
    """How often a request or a text failed with a code in the last hour."""

    code = graphene.Field(ErrorCode, required=True, description="The code of the error.")
    count = graphene.Int(required=True, description="The number of these errors, in all web processes together.")
    last = graphene.DateTime(required=True, description="When the latest of them occurred.")
    request_id = graphene.ID(
        required=True, description="The id of the latest request with this error. The log has more about it."
    )

    @staticmethod
    def resolve_last(error: ErrorCount, _info: GraphQLResolveInfo) -> datetime:
        return datetime.fromtimestamp(error.last, UTC)


class ServiceStatus(graphene.ObjectType):
    """The status of the service, at most about a second old."""

    broker = graphene.Boolean(
        description="Whether the message broker answers; null if none is used. If it does not, little else is known."
    )
    models = graphene.List(
        graphene.NonNull(ModelStatus),
        required=True,
        description="The warm models, those in a worker's memory, and those that a worker could not load.",
    )
    on_demand = graphene.Field(OnDemandStatus, description="The models on demand; null if there are none.")
    workers = graphene.List(graphene.NonNull(WorkerStatusType), required=True, description="The workers that answer.")
    dead_letters = graphene.Int(description="The number of messages that no worker could process.")
    job_workers = graphene.Int(description="Results workers, without which jobs stand still; null if nothing is known.")
    errors = graphene.List(
        graphene.NonNull(ErrorStatus),
        required=True,
        description="The errors of the last hour, one entry for each code.",
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
        job_workers=status.job_workers,
        errors=total([*status.errors, *context.recent_errors.counts()]),
    )


def _model_status(entry: Entry, registry: Registry, status: Status) -> ModelStatus:
    ways = [Way(pair.source, pair.target, (entry.name,)) for pair in entry.pairs]
    return ModelStatus(
        name=entry.name,
        warm=entry.warm,
        pairs=[language_pair(way, registry, status) for way in ways],
        queues=status.own_queues(entry),
        problem=status.problems.get(entry.name),
    )


def _on_demand_status(registry: Registry, status: Status) -> OnDemandStatus | None:
    on_demand = sum(not entry.warm for entry in registry.models.values())
    return OnDemandStatus(models=on_demand, queues=status.shared_queues()) if on_demand else None
