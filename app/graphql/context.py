"""The context of a request to the GraphQL API."""

from __future__ import annotations

from dataclasses import dataclass

from app.jobs.submission import Jobs
from app.translation.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphQLContext(Context):
    """What resolvers need to answer one request: what a translation needs, and the jobs."""

    jobs: Jobs
