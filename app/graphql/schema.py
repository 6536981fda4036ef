"""The GraphQL schema, put together from the modules of this package."""

from __future__ import annotations

from collections.abc import Callable

import graphene

from app.graphql.detection import DetectionType, resolve_detect
from app.graphql.jobs import (
    JobConnection,
    JobStatus,
    JobType,
    SubmitInput,
    resolve_append,
    resolve_cancel,
    resolve_delete,
    resolve_job,
    resolve_jobs,
    resolve_retry,
    resolve_start,
    resolve_submit,
)
from app.graphql.models import LanguagePair, ModelType, resolve_languages, resolve_models
from app.graphql.service import ServiceStatus, resolve_status
from app.graphql.subscriptions import Subscription
from app.graphql.translations import (
    CancelPayload,
    TranslateInput,
    TranslatePayload,
    resolve_cancel_translation,
    resolve_translate,
)
from app.graphql.usage import UsageType, resolve_usage


class Query(graphene.ObjectType):
    """Languages, models, what language a text is in, and the status of the service."""

    languages = graphene.Field(
        graphene.List(graphene.NonNull(LanguagePair)),
        required=True,
        resolver=resolve_languages,
        description="All pairs of languages that texts can be translated between.",
    )
    models = graphene.Field(
        graphene.List(graphene.NonNull(ModelType)),
        required=True,
        resolver=resolve_models,
        description="All models, once for each of their language pairs. The data are at most a second old.",
    )
    detect = graphene.Field(
        graphene.List(graphene.NonNull(DetectionType)),
        required=True,
        texts=graphene.List(
            graphene.NonNull(graphene.String), required=True, description="The texts, which belong together."
        ),
        resolver=resolve_detect,
        description="The languages of texts, in the order of the texts. It counts as a request of the API key.",
    )
    status = graphene.Field(
        ServiceStatus,
        required=True,
        resolver=resolve_status,
        description="The status of the service, for operators: queues, workers, errors.",
    )
    usage = graphene.Field(
        UsageType,
        resolver=resolve_usage,
        description="The usage of the API key; null if no key is needed and none was sent.",
    )
    job = graphene.Field(
        JobType,
        id=graphene.ID(required=True, description="The job's id."),
        resolver=resolve_job,
        description="A job of the API key, or without keys of this machine; null if it has none with this id.",
    )
    jobs = graphene.Field(
        JobConnection,
        required=True,
        first=graphene.Int(default_value=20, description="How many jobs are wanted, 1000 at most."),
        after=graphene.String(description="The cursor of the job before the first one that is wanted."),
        status=JobStatus(description="Only jobs that stand there."),
        resolver=resolve_jobs,
        description="The jobs of the API key, or without keys of this machine, the newest first.",
    )


def _job_field(resolver: Callable[..., JobType], description: str) -> graphene.Field:
    """A mutation of the job with an id, which returns it as it is then."""
    job_id = graphene.ID(required=True, description="The job's id.")
    return graphene.Field(JobType, required=True, id=job_id, resolver=resolver, description=description)


class Mutation(graphene.ObjectType):
    """Translations. They are mutations because they cost, and because their results may differ from call to call."""

    translate = graphene.Field(
        TranslatePayload,
        required=True,
        input=graphene.Argument(TranslateInput, required=True, description="The texts and the languages."),
        resolver=resolve_translate,
        description="Translates texts from one language into another.",
    )
    cancel_translation = graphene.Field(
        CancelPayload,
        required=True,
        request_id=graphene.ID(required=True, description="The id of the translation's request."),
        resolver=resolve_cancel_translation,
        description="Cancels a translation of the same caller, by the X-Request-Id that it was sent with.",
    )
    submit_translation = graphene.Field(
        JobType,
        required=True,
        input=graphene.Argument(SubmitInput, required=True, description="The texts and the languages."),
        resolver=resolve_submit,
        description="Makes a job, which is done whether or not anybody waits. Returns at once.",
    )
    append_texts = graphene.Field(
        JobType,
        required=True,
        job_id=graphene.ID(required=True, description="The id of an open job."),
        offset=graphene.Int(required=True, description="The number of texts before these in the job."),
        texts=graphene.List(
            graphene.NonNull(graphene.String), required=True, description="The texts, 2000 at most, in a variable."
        ),
        resolver=resolve_append,
        description="Adds texts to an open job. The same call once more changes nothing.",
    )
    start_job = graphene.Field(
        JobType,
        required=True,
        job_id=graphene.ID(required=True, description="The id of an open job."),
        resolver=resolve_start,
        description="Closes and starts a job that was submitted open.",
    )
    cancel_job = _job_field(
        resolve_cancel, "Cancels a job, unless it has ended. What was translated stays; the rest is refunded."
    )
    retry_job = _job_field(
        resolve_retry, "Starts a job that has ended once more, for the texts that have no translation."
    )
    delete_job = _job_field(
        resolve_delete, "Deletes a job with its translations now. One that has not ended is cancelled."
    )


def build_schema() -> graphene.Schema:
    """The schema of the API. Its resolvers expect a Context."""
    return graphene.Schema(query=Query, mutation=Mutation, subscription=Subscription)
