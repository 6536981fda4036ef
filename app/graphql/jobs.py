"""The GraphQL API of jobs: work that outlives its request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import graphene
from graphql import GraphQLResolveInfo, OperationType

from app.accounts import auth
from app.accounts.keys import Scope
from app.graphql.context import GraphQLContext
from app.graphql.translations import LinesType, TranslationError, TranslationType, translation_type
from app.jobs import store
from app.jobs.job import Job, Segment, Status
from app.jobs.limits import Submission, refusal
from tasks.contract.reply import TextResult
from tasks.contract.request import Lines

STATUS = {
    Status.OPEN: "It takes more texts by `appendTexts`, until `startJob` starts it.",
    Status.QUEUED: "It waits for its first texts to be sent to workers.",
    Status.RUNNING: "Its texts are being translated.",
    Status.SUCCEEDED: "It has ended. All of its texts are translated.",
    Status.FAILED: "It has ended. Some of its texts have no translation; `error` and the texts say why.",
    Status.CANCELLED: "It was cancelled. What was translated before stays.",
}
PRIORITY = {
    "BULK": "After all requests that somebody waits for.",
    "INTERACTIVE": "As soon as a request. Its texts are limited as those of one.",
}
JobStatus = graphene.Enum.from_enum(
    Status,
    name="JobStatus",
    description=lambda status: STATUS[status] if status else "Where a job stands.",
)
JobPriority = graphene.Enum(
    "JobPriority",
    [("BULK", "bulk"), ("INTERACTIVE", "interactive")],
    description=lambda each: PRIORITY[each.name] if each else "How soon the texts of a job are translated.",
)


class PageInfo(graphene.ObjectType):
    """What follows a page."""

    has_next_page = graphene.Boolean(required=True, description="Whether there is more behind this page.")
    end_cursor = graphene.String(description="What `after` has to be for the next page; null for an empty page.")


class JobTranslationEdge(graphene.ObjectType):
    """A text of a job, and its translation."""

    cursor = graphene.String(required=True, description="What `after` has to be for the texts behind this one.")
    position = graphene.Int(required=True, description="The number of texts before it in the job.")
    original = graphene.String(required=True, description="The text.")
    node = graphene.Field(
        TranslationType,
        required=True,
        description="Its translation. Both `text` and `error` are null until there is one.",
    )


class TranslationConnection(graphene.ObjectType):
    """A page of the translations of a job, in the order of its texts."""

    edges = graphene.List(graphene.NonNull(JobTranslationEdge), required=True, description="The texts of the page.")
    page_info = graphene.Field(PageInfo, required=True, description="What follows.")


class Progress(graphene.ObjectType):
    """How far a job is."""

    done = graphene.Int(required=True, description="Texts that have a translation or an error.")
    total = graphene.Int(required=True, description="All texts of the job.")
    failed = graphene.Int(required=True, description="Texts that have an error.")


class CallbackType(graphene.ObjectType):
    """What became of telling a callback address that a job has ended."""

    class Meta:
        name = "Callback"

    attempts = graphene.Int(required=True, description="How often it was tried.")
    delivered_at = graphene.DateTime(description="When the receiver accepted it.")
    next_attempt_at = graphene.DateTime(description="When it is tried again; null if it is not.")
    error = graphene.String(description="Why the last attempt failed.")


class JobType(graphene.ObjectType):
    """Texts that are translated whether or not anybody waits for them."""

    class Meta:
        name = "Job"

    id = graphene.ID(required=True, description="Identifies the job.")
    status = graphene.Field(JobStatus, required=True, description="Where it stands.")
    progress = graphene.Field(Progress, required=True, description="How far it is.")
    created_at = graphene.DateTime(required=True, description="When it was submitted.")
    started_at = graphene.DateTime(description="When its first texts were sent to workers.")
    finished_at = graphene.DateTime(description="When it ended.")
    deadline = graphene.DateTime(required=True, description="When it ends even if it is not done.")
    expires_at = graphene.DateTime(description="When it is deleted; null until it has ended.")
    source = graphene.String(description="The language of the texts; null if it is detected for each.")
    target = graphene.String(required=True, description="The language of the translations, as it was understood.")
    model = graphene.String(description="The models, as `translate` names them; null until there are texts.")
    version = graphene.String(description="The versions of the models' weights, as far as they have translated.")
    priority = graphene.Field(JobPriority, required=True, description="How soon it is done.")
    callback_url = graphene.String(description="The address that is told when the job ends.")
    callback = graphene.Field(CallbackType, description="The telling; null without an address, and before its end.")
    error = graphene.Field(TranslationError, description="Why it failed; null if it did not.")
    translations = graphene.Field(
        TranslationConnection,
        required=True,
        first=graphene.Int(default_value=100, description="How many texts are wanted, 1000 at most."),
        after=graphene.String(description="The cursor of the text before the first one that is wanted."),
        description="Its texts with their translations, for queries. A page is shorter if its texts are long.",
    )

    def resolve_callback(self, info: GraphQLResolveInfo) -> CallbackType | None:
        found = info.context.jobs.callback(self.job)
        return found and CallbackType(
            attempts=found.attempts,
            delivered_at=_time(found.delivered),
            next_attempt_at=_time(found.next_attempt),
            error=found.error,
        )

    def resolve_translations(
        self, info: GraphQLResolveInfo, *, first: int = 100, after: str | None = None
    ) -> TranslationConnection:
        if info.operation.operation is OperationType.SUBSCRIPTION:  # one thread would read them for all listeners
            raise refusal("translations: a subscription has none. Query job(id) { translations }, also while it runs.")
        job: Job = self.job
        segments, more = info.context.jobs.segments(job, first, _position(after))
        edges = [
            JobTranslationEdge(
                cursor=str(each.position), position=each.position, original=each.text, node=_node(job, each)
            )
            for each in segments
        ]
        return TranslationConnection(edges=edges, page_info=_page_info([each.cursor for each in edges], more))


class JobEdge(graphene.ObjectType):
    """A job in a list."""

    cursor = graphene.String(required=True, description="What `after` has to be for the jobs behind this one.")
    node = graphene.Field(JobType, required=True, description="The job.")


class JobConnection(graphene.ObjectType):
    """A page of jobs, the newest first."""

    edges = graphene.List(graphene.NonNull(JobEdge), required=True, description="The jobs of the page.")
    page_info = graphene.Field(PageInfo, required=True, description="What follows.")


class SubmitInput(graphene.InputObjectType):
    """The texts of a job, and how they are translated."""

    texts = graphene.List(
        graphene.NonNull(graphene.String),
        required=True,
        description="The texts, 2000 at most. Send them in a variable. `appendTexts` adds more to an open job.",
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
    lines = LinesType(default_value=Lines.KEEP, description="What becomes of the line breaks in a text.")
    priority = JobPriority(default_value="bulk", description="How soon the job is done.")
    deadline = graphene.DateTime(
        description="When the job ends even if it is not done, within 7 days. By default 24 hours after its submission."
    )
    callback_url = graphene.String(description="An address that is told when the job ends.")
    open = graphene.Boolean(
        default_value=False, description="Whether `appendTexts` will add texts. Then `startJob` starts the job."
    )
    idempotency_key = graphene.String(
        description="A unique key, such as a UUID: as long as the job is kept, the same key and input get the same job."
    )


def resolve_submit(_root: None, info: GraphQLResolveInfo, *, input: Any) -> JobType:
    context: GraphQLContext = info.context
    wanted = Submission(
        texts=input.texts,
        target=input.target,
        source=input.source,
        model=input.model,
        assume=input.assume,
        lines=input.lines or Lines.KEEP,
        priority=getattr(input.priority, "value", input.priority) or "bulk",
        deadline=None if input.deadline is None else _seconds(input.deadline),
        callback_url=input.callback_url,
        idempotency_key=input.idempotency_key,
        open=bool(input.open),
    )
    return job_type(context.jobs.submit(context, wanted))


def resolve_append(_root: None, info: GraphQLResolveInfo, *, job_id: str, offset: int, texts: Sequence[str]) -> JobType:
    return job_type(info.context.jobs.append(info.context, job_id, offset, texts))


def resolve_start(_root: None, info: GraphQLResolveInfo, *, job_id: str) -> JobType:
    return job_type(info.context.jobs.start(info.context, job_id))


def resolve_cancel(_root: None, info: GraphQLResolveInfo, *, id: str) -> JobType:
    return job_type(info.context.jobs.cancel(info.context, id))


def resolve_retry(_root: None, info: GraphQLResolveInfo, *, id: str) -> JobType:
    return job_type(info.context.jobs.retry(info.context, id))


def resolve_delete(_root: None, info: GraphQLResolveInfo, *, id: str) -> JobType:
    return job_type(info.context.jobs.delete(info.context, id))


def resolve_job(_root: None, info: GraphQLResolveInfo, *, id: str) -> JobType | None:
    job = find(info.context, id)
    return None if job is None else job_type(job)


def find(context: GraphQLContext, job_id: str) -> Job | None:
    """The caller's job with this id, if there is one. Raises TolkError if its key may not translate."""
    auth.demand(context.key, Scope.TRANSLATE)
    return context.jobs.find(context.principal or "", job_id)


def resolve_jobs(
    _root: None, info: GraphQLResolveInfo, *, first: int = 20, after: str | None = None, status: Status | None = None
) -> JobConnection:
    jobs, more = info.context.jobs.page(info.context, first, after, status)
    edges = [JobEdge(cursor=store.cursor(each), node=job_type(each)) for each in jobs]
    return JobConnection(edges=edges, page_info=_page_info([each.cursor for each in edges], more))


def job_type(job: Job) -> JobType:
    """A job as the API has it."""
    made = JobType(
        id=job.id,
        status=job.status,
        progress=Progress(done=job.done, total=job.total, failed=job.failed),
        created_at=_time(job.created),
        started_at=_time(job.started),
        finished_at=_time(job.finished),
        deadline=_time(job.deadline),
        expires_at=_time(job.expires),
        source=job.source,
        target=job.target,
        model=job.model,
        version=job.version,
        priority=job.priority,
        callback_url=job.callback_url,
        error=job.error,
    )
    made.job = job
    return made


def _node(job: Job, segment: Segment) -> TranslationType:
    return translation_type(segment.text, segment.result or TextResult(error=job.abandoned), segment.origin)


def _page_info(cursors: Sequence[str], more: bool) -> PageInfo:
    return PageInfo(has_next_page=more, end_cursor=cursors[-1] if cursors else None)


def _position(after: str | None) -> int:
    if after is None:
        return -1
    if not (after.isascii() and after.isdigit() and len(after) < 10):
        raise refusal("after: a cursor of an earlier page was expected.")
    return int(after)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
