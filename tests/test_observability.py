"""One translation is traced from HTTP to the decoder and back: exported spans, the stored trace, the logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from telemetry.tracing import Span
from tests.conftest import LOGS, REPOSITORY
from tests.telemetry.collector import Collector

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

SECRET = "Je vais dormir chez Quetzalcoatl."
DOCUMENT = "mutation($input: TranslateInput!) { translate(input: $input) { translations { text error { code } } } }"
STAGES = ["admission", "publish", "queue", "load", "wait", "prefill", "decode"]


@dataclass
class Tolk:
    """A running service that exports its spans and logs JSON."""

    url: str
    worker: Any
    environ: dict[str, str]
    collector: Collector

    def translate(self, request_id: str, **fields: object) -> requests.Response:
        variables = {"input": {"texts": [SECRET], "target": "en", **fields}}
        return requests.post(
            f"{self.url}/graphql",
            json={"query": DOCUMENT, "variables": variables},
            headers={"X-Request-Id": request_id},
            timeout=30,
        )

    def trace(self, request_id: str, *options: str) -> str:
        """The output of `flask trace` for a request."""
        return subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", "trace", request_id, *options],
            cwd=REPOSITORY,
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def has_kept(self, request_id: str) -> bool:
        """Whether the web tier has kept the trace of a request, which it does after the answer."""
        return any(request_id in file.read_text() for file in Path(self.environ["TOLK_TRACES"]).glob("*"))

    def lines(self, log: Path, request_id: str) -> list[dict[str, Any]]:
        """The lines of a log for a request."""
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("request_id") == request_id]


@pytest.fixture(scope="module")
def tolk(
    broker: Any, start_worker: Any, start_web: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tolk]:
    with Collector() as collector:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",  # milliseconds
            "TOLK_LOG_FORMAT": "json",
            "TOLK_TRACES": str(tmp_path_factory.mktemp("traces")),
        }
        worker = start_worker(broker.url, **environ)
        url = start_web(broker.url, **environ)
        yield Tolk(url, worker, environ, collector)


def test_a_translation_is_one_trace_from_http_to_the_decoder(tolk: Tolk, eventually: Callable[..., None]) -> None:
    request_id = str(uuid4())
    answer = tolk.translate(request_id, idempotencyKey=request_id)
    assert answer.json()["data"]["translate"]["translations"][0]["error"] is None

    def spans() -> dict[str, Any]:
        roots = [each for each in tolk.collector.spans if each.attributes.get("tolk.request_id") == request_id]
        return {each.name: each for each in tolk.collector.spans if roots and each.trace == roots[0].trace}

    names = {"POST /graphql", "translate by fr-en", "run/tolk.translate", "database", *STAGES}
    eventually(lambda: spans().keys() >= names)
    found = spans()
    parents = {
        "translate by fr-en": "POST /graphql",
        "database": "POST /graphql",
        "admission": "translate by fr-en",
        "publish": "translate by fr-en",
        "queue": "publish",
        "run/tolk.translate": "publish",
        **dict.fromkeys(STAGES[3:], "run/tolk.translate"),
    }
    assert {name: found[name].parent for name in parents} == {
        name: found[parent].id for name, parent in parents.items()
    }
    databases = {each.id for each in tolk.collector.spans if each.name == "database"}
    assert {each.parent for each in found.values() if "db.statement" in each.attributes} <= databases
    assert any("db.statement" in each.attributes for each in found.values())
    for name, span in found.items():
        here = span.name in ("run/tolk.translate", *STAGES[2:])
        assert span.service == ("tolk-worker" if here else "tolk-web"), name
        assert found["POST /graphql"].start <= span.start <= span.end, name
    assert all(found[stage].end <= found["POST /graphql"].end for stage in STAGES)
    assert found["decode"].end > found["decode"].start
    assert found["POST /graphql"].attributes["tolk.model"] == "fr-en"
    assert b"Quetzalcoatl" not in tolk.collector.received


def read(data: dict[str, Any]) -> Span:
    return Span(**{**data, "children": [read(child) for child in data["children"]]})


def test_the_web_tier_shows_the_same_trace_without_a_collector(tolk: Tolk, eventually: Callable[..., None]) -> None:
    request_id = str(uuid4())
    tolk.translate(request_id)
    eventually(lambda: tolk.has_kept(request_id))
    [root] = [read(json.loads(line)) for line in tolk.trace(request_id, "--json").splitlines()]
    *_, leg = root.children  # a span of the database, for the API keys, may come before
    assert (root.name, leg.name) == ("POST /graphql", "translate by fr-en")
    assert [each.name for each in leg.children if each.name in STAGES] == STAGES
    assert [each.name for each in sorted(leg.children, key=lambda each: each.start)][-1] == "reply"
    assert root.attributes["status"] == 200
    assert leg.attributes["worker"]
    assert all(0 <= span.duration <= root.duration for _, span in root.walk())
    assert sum(each.duration for each in leg.children if each.name != "publish") <= leg.duration
    assert {each.name: each.duration > 0 for each in leg.children}["decode"]
    tree = tolk.trace(request_id)
    assert tree.splitlines()[0].endswith("characters=33 model=fr-en source=fr target=en client=127.0.0.1 status=200")
    assert "Quetzalcoatl" not in tree


def test_a_request_is_one_line_and_a_task_is_one_line(tolk: Tolk, eventually: Callable[..., None]) -> None:
    request_id = str(uuid4())
    tolk.translate(request_id)
    [web] = [log for name, log in LOGS.items() if name.startswith("gunicorn")]
    eventually(lambda: tolk.lines(web, request_id) and tolk.lines(tolk.worker.log, request_id))
    [request], [task] = tolk.lines(web, request_id), tolk.lines(tolk.worker.log, request_id)
    assert (request["logger"], request["message"], request["status"]) == ("app.web.request_log", "POST /graphql", 200)
    assert task["logger"] == "tasks.worker.translate"
    assert task["message"].startswith(f"tolk.translate[{request_id}.")
    assert task["message"].endswith("] OK")
    both = {"texts": 1, "characters": 33, "model": "fr-en", "source": "fr", "target": "en"}
    assert both.items() <= request.items()
    assert both.items() <= task.items()
    assert 0 < task["decode_ms"] <= task["ms"] <= request["ms"]
    assert not any("Quetzalcoatl" in log.read_text() for log in (web, tolk.worker.log))


def test_an_error_carries_the_id_under_which_all_is_found(tolk: Tolk, eventually: Callable[..., None]) -> None:
    request_id = str(uuid4())
    [error] = tolk.translate(request_id, model="gone").json()["errors"]
    assert (error["extensions"]["code"], error["extensions"]["requestId"]) == ("UNKNOWN_MODEL", request_id)
    eventually(lambda: tolk.has_kept(request_id))
    assert "code=UNKNOWN_MODEL" in tolk.trace(request_id)

    def code() -> set[object]:
        return {
            each.attributes.get("tolk.code")
            for each in tolk.collector.spans
            if each.attributes.get("tolk.request_id") == request_id
        }

    eventually(lambda: code() == {"UNKNOWN_MODEL"})
