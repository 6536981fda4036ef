"""Jobs over GraphQL: a web tier whose jobs are done by real workers, or by nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import requests
from sqlalchemy import Connection

from app.jobs import store
from app.jobs.job import Status

FIELDS = "id status progress { done total failed } error { code message } version expiresAt"
SUBMIT = f"mutation ($input: SubmitInput!) {{ submitTranslation(input: $input) {{ {FIELDS} }} }}"
TEXTS = """query ($id: ID!, $first: Int!, $after: String) { job(id: $id) { translations(first: $first, after: $after) {
  edges { position original node { text source model version error { code message } } }
  pageInfo { hasNextPage endCursor } } } }"""


@dataclass
class Api:
    """The GraphQL API at a URL, for the holder of a key or without one."""

    url: str
    secret: str | None = None

    def call(self, query: str, **variables: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.secret}"} if self.secret else {}
        body = {"query": query, "variables": variables}
        answer: dict[str, Any] = requests.post(f"{self.url}/graphql", json=body, headers=headers, timeout=30).json()
        assert "errors" not in answer, answer
        [data] = answer["data"].values()
        return data

    def submit(self, *texts: str, **fields: Any) -> dict[str, Any]:
        return self.call(SUBMIT, input={"texts": texts, "source": "fr", "target": "en", **fields})

    def job(self, job_id: str) -> dict[str, Any]:
        return self.call(f"query ($id: ID!) {{ job(id: $id) {{ {FIELDS} }} }}", id=job_id)

    def change(self, mutation: str, job_id: str) -> dict[str, Any]:
        return self.call(f"mutation ($id: ID!) {{ {mutation}(id: $id) {{ {FIELDS} }} }}", id=job_id)

    def texts(self, job_id: str, first: int = 1000) -> list[dict[str, Any]]:
        """All texts of a job, page by page."""
        edges: list[dict[str, Any]] = []
        after = None
        while True:
            page = self.call(TEXTS, id=job_id, first=first, after=after)["translations"]
            edges += page["edges"]
            if not page["pageInfo"]["hasNextPage"]:
                return edges
            after = page["pageInfo"]["endCursor"]


def create_job(connection: Connection, **values: Any) -> int:
    """Inserts a job that runs and has no texts. Returns its number."""
    now = time.time()
    usual = {
        "uuid": str(uuid4()), "principal": "7", "caller": "7", "input_hash": "", "status": Status.RUNNING,
        "target": "en", "lines": "keep", "priority": "bulk", "created": now, "deadline": now + 60, "retention": 60.0,
        "charged_day": 0,
    }  # fmt: skip
    return store.create(connection, usual | values)


@pytest.fixture(scope="module")
def start_results(spawn: Callable[..., Any], eventually: Callable[..., None]) -> Callable[..., Any]:
    """Starts a results worker and returns when it takes results."""

    def start(url: str, **environ: str) -> Any:
        worker = spawn("celery", "-A", "app.jobs.results", "worker", CELERY_BROKER_URL=url, **environ)
        eventually(lambda: worker.says(" ready.") or worker.process.poll() is not None, 60)
        assert worker.process.poll() is None
        return worker

    return start
