"""Jobs as callers see them, over GraphQL, on both databases. Nobody translates here: replies are made up."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select, update

from app import create_app
from app.accounts import keys
from app.accounts.keys import Scope
from app.database import tables
from app.database.transactions import Database
from app.jobs import chunks, recording, store, sweep
from app.jobs.chunks import Chunk
from app.monitoring.metrics import WebMetrics
from app.monitoring.status import Status
from app.settings import Settings
from app.translation.translator import EchoTranslator
from tasks.contract.errors import Code
from tasks.contract.reply import Failure, TextResult, TranslateReply
from tasks.registry.file import load_registry
from telemetry.address import Address
from tests.app.jobs.conftest import FIELDS, SUBMIT

APPEND = f"""mutation ($job: ID!, $offset: Int!, $texts: [String!]!) {{
  appendTexts(jobId: $job, offset: $offset, texts: $texts) {{ {FIELDS} }} }}"""
START = f"mutation ($job: ID!) {{ startJob(jobId: $job) {{ {FIELDS} }} }}"
CHANGE = f"mutation ($id: ID!) {{ %s(id: $id) {{ {FIELDS} }} }}"
NODES = "query ($id: ID!) { job(id: $id) { translations { edges { original node { text error { code } } } } } }"


class Service:
    """A web process on a database, two keys, and a results worker whose steps a test takes one by one."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.registry = load_registry(Settings().models)
        self.secrets = {
            name: database.run(lambda connection, name=name: keys.create(connection, name, list(Scope), None, 10_000))
            for name in ("ours", "theirs")
        }
        self.client: FlaskClient = create_app(Settings(database=database.url), EchoTranslator()).test_client()

    def call(self, query: str, by: str = "ours", **variables: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.secrets[by]}"}
        answer = self.client.post("/graphql", json={"query": query, "variables": variables}, headers=headers).json
        if "errors" in answer:
            return answer["errors"][0]
        [data] = answer["data"].values()
        return data

    def submit(self, *texts: str, by: str = "ours", **fields: Any) -> Any:
        return self.call(SUBMIT, by, input={"texts": texts, "source": "fr", "target": "en", **fields})

    def job(self, job: Any) -> Any:
        return self.call(f"query ($id: ID!) {{ job(id: $id) {{ {FIELDS} }} }}", id=job["id"])

    def nodes(self, job: Any) -> list[tuple[str, str | None, str | None]]:
        edges = self.call(NODES, id=job["id"])["translations"]["edges"]
        return [
            (edge["original"], edge["node"]["text"], edge["node"]["error"] and edge["node"]["error"]["code"])
            for edge in edges
        ]

    def used(self) -> int:
        used: int = self.call("{ usage { characters } }")["characters"]
        return used

    def take(self) -> list[Chunk]:
        return self.database.run(lambda connection: chunks.take(connection, self.registry, 60.0))

    def reply(self, chunk: Chunk, reply: TranslateReply | None = None) -> bool:
        """Records a reply: the texts in capitals, and an error for those that begin with #."""
        results = [
            TextResult(error=Failure(Code(text[1:]), "Failed.")) if text[:1] == "#" else TextResult(text.upper())
            for text in chunk.request.texts
        ]
        said = reply or TranslateReply(chunk.request.model, "v1", results=tuple(results))
        return self.database.run(lambda connection: recording.record(connection, self.registry, chunk.id, said))

    def age(self, seconds: float) -> None:
        """As if time had passed."""

        def age(connection: Any) -> None:
            table = tables.job
            connection.execute(
                update(table).values(deadline=table.c.deadline - seconds, expires=table.c.expires - seconds)
            )
            connection.execute(update(tables.job_chunk).values(lease=tables.job_chunk.c.lease - seconds))

        self.database.run(age)


@pytest.fixture
def service(database: Database) -> Service:
    return Service(database)


def test_a_job_is_charged_once_and_refunded_for_what_failed(service: Service) -> None:
    job = service.submit("Un.", "#BAD_INPUT", "Deux.")
    assert (job["status"], service.used()) == ("QUEUED", 18)
    [chunk] = service.take()
    assert service.job(job)["status"] == "RUNNING"
    assert service.take() == []
    assert service.reply(chunk)
    ended = service.job(job)
    assert (ended["status"], ended["progress"]) == ("FAILED", {"done": 3, "total": 3, "failed": 1})
    assert ended["version"] == "v1"
    assert service.nodes(job) == [
        ("Un.", "UN.", None), ("#BAD_INPUT", None, "BAD_INPUT"), ("Deux.", "DEUX.", None)
    ]  # fmt: skip
    assert service.used() == 8
    assert service.call(CHANGE % "retryJob", id=job["id"])["status"] == "QUEUED"
    assert service.used() == 18
    [again] = service.take()
    assert again.request.texts == ("#BAD_INPUT",)
    service.reply(again, TranslateReply("fr-en", results=(TextResult("Bien."),)))
    assert (service.job(job)["status"], service.used()) == ("SUCCEEDED", 18)


def test_a_second_reply_a_late_one_and_one_to_nothing_change_nothing(service: Service) -> None:
    job = service.submit("Un.", "Deux.")
    [lost] = service.take()
    service.age(100)
    assert service.database.run(sweep.lose_chunks) == 1
    singles = service.take()
    assert [each.request.texts for each in singles] == [("Un.",), ("Deux.",)]
    assert not service.reply(lost)  # late
    assert [service.reply(each) for each in singles] == [True, True]
    before = service.job(job)
    assert not service.reply(singles[0], TranslateReply("fr-en", results=(TextResult("Other."),)))
    assert service.job(job) == before
    assert service.nodes(job) == [("Un.", "UN.", None), ("Deux.", "DEUX.", None)]


def test_two_results_workers_with_the_same_reply_record_it_once(service: Service) -> None:
    job = service.submit(*["Un."] * 64)
    [chunk] = service.take()
    with ThreadPoolExecutor(8) as pool:
        recorded = list(pool.map(lambda _: service.reply(chunk), range(8)))
    assert sum(recorded) == 1
    assert service.job(job)["progress"] == {"done": 64, "total": 64, "failed": 0}


def test_two_that_sweep_and_take_at_once_double_nothing(service: Service) -> None:
    service.submit(*["Un."] * 300)
    with ThreadPoolExecutor(8) as pool:
        taken = [chunk for some in pool.map(lambda _: service.take(), range(8)) for chunk in some]
    assert sum(len(chunk.request.texts) for chunk in taken) == 300
    service.age(100)
    with ThreadPoolExecutor(8) as pool:
        lost = sum(pool.map(lambda _: service.database.run(sweep.lose_chunks), range(8)))
    assert lost == len(taken)
    assert len(service.take()) == chunks.OUT


def test_a_text_that_ends_its_workers_fails_alone(service: Service) -> None:
    job = service.submit("Un.", "poison", "Deux.")
    service.take()
    service.age(100)
    service.database.run(sweep.lose_chunks)
    for chunk in service.take():
        if chunk.request.texts != ("poison",):
            service.reply(chunk)
    service.age(100)
    service.database.run(sweep.lose_chunks)
    assert service.nodes(job) == [("Un.", "UN.", None), ("poison", None, "INTERNAL"), ("Deux.", "DEUX.", None)]
    assert service.job(job)["status"] == "FAILED"


def test_a_chunk_that_no_worker_has_seen_is_no_attempt(service: Service) -> None:
    job = service.submit("Un.", "Deux.")
    for _ in range(5):
        [chunk] = service.take()
        service.database.run(lambda connection, chunk=chunk: recording.take_back(connection, chunk.id))
    [chunk] = service.take()
    assert service.reply(chunk)
    assert service.job(job)["status"] == "SUCCEEDED"


def test_small_jobs_take_turns_with_a_large_one(service: Service) -> None:
    large = service.submit(*["Un."] * 2000)
    small = service.submit("Deux.", "Trois.", by="theirs")
    order = [chunk.request.texts[0] for chunk in service.take()]
    assert (order.count("Un."), order.index("Deux.") < 2) == (chunks.OUT, True)
    assert (large["status"], small["status"]) == ("QUEUED", "QUEUED")


def test_an_overdue_job_ends_and_says_why(service: Service) -> None:
    job, unstarted = service.submit("Un.", "Deux."), service.submit(open=True)
    [chunk] = service.take()
    service.age(2 * 86_400)
    assert service.database.run(sweep.end_overdue) == 2
    assert service.job(job)["error"] == {"code": "TIMEOUT", "message": sweep.LATE}
    assert service.job(unstarted)["error"]["message"] == sweep.UNSTARTED
    assert service.used() == 0
    assert service.database.run(sweep.take_unwanted) == [chunk.id]
    assert not service.reply(chunk)
    assert service.nodes(job)[0] == ("Un.", None, "TIMEOUT")


def test_a_cancelled_job_delivers_nothing_more_and_can_be_retried(service: Service) -> None:
    job = service.submit(*["Un."] * 64, "Deux.")
    first, second = sorted(service.take(), key=lambda chunk: -len(chunk.request.texts))
    service.reply(first)
    assert service.call(CHANGE % "cancelJob", id=job["id"])["status"] == "CANCELLED"
    assert not service.reply(second)
    assert service.job(job)["progress"] == {"done": 64, "total": 65, "failed": 0}
    assert service.used() == 64 * 3
    service.call(CHANGE % "retryJob", id=job["id"])
    [last] = service.take()
    assert last.request.texts == ("Deux.",)
    service.reply(last)
    assert (service.job(job)["status"], service.used()) == ("SUCCEEDED", 64 * 3 + 5)


def test_an_open_job_grows_by_offset(service: Service) -> None:
    job = service.submit("Un.", open=True)
    assert (job["status"], service.take()) == ("OPEN", [])
    append = {"job": job["id"], "offset": 1, "texts": ["Deux.", "Trois."]}
    for _ in range(2):
        assert service.call(APPEND, **append)["progress"]["total"] == 3
    assert service.used() == 14
    for wrong, said in (({"texts": ["Quatre."]}, "other texts at 1"), ({"offset": 5}, "Append those from 3 on")):
        assert said in service.call(APPEND, **append | wrong)["message"]
    assert service.call(START, job=job["id"])["status"] == "QUEUED"
    assert service.call(START, job=job["id"])["status"] == "QUEUED"
    assert "only an OPEN one" in service.call(APPEND, **append | {"offset": 3})["message"]
    assert service.call(APPEND, **append)["progress"]["total"] == 3
    [chunk] = service.take()
    assert chunk.request.texts == ("Un.", "Deux.", "Trois.")


def test_the_same_idempotency_key_gets_the_same_job(service: Service) -> None:
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda _: service.submit("Un.", idempotencyKey="a"), range(4)))
    assert len({job["id"] for job in jobs}) == 1
    assert service.used() == 3
    assert "idempotencyKey" in service.submit("Deux.", idempotencyKey="a")["message"]
    assert service.submit("Un.", idempotencyKey="a", by="theirs")["id"] != jobs[0]["id"]


def test_a_job_is_its_owners(service: Service) -> None:
    job = service.submit("Un.")
    assert service.call("query ($id: ID!) { job(id: $id) { id } }", by="theirs", id=job["id"]) is None
    for mutation in ("cancelJob", "retryJob", "deleteJob"):
        assert "no such job of this key" in service.call(CHANGE % mutation, by="theirs", id=job["id"])["message"]
    path = f"/jobs/{job['id']}/translations.tsv"
    for secret, status in (("theirs", 404), ("ours", 200), (None, 401)):
        headers = {"Authorization": f"Bearer {service.secrets[secret]}"} if secret else {}
        assert service.client.get(path, headers=headers).status_code == status


def test_jobs_are_listed_page_by_page(service: Service) -> None:
    ids = [service.submit("Un.")["id"] for _ in range(5)]
    query = """query ($after: String) { jobs(first: 2, after: $after) {
      edges { node { id } } pageInfo { hasNextPage endCursor } } }"""
    found: list[str] = []
    after = None
    while True:
        page = service.call(query, after=after)
        found += [edge["node"]["id"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    assert found == ids[::-1]
    service.call(CHANGE % "cancelJob", id=ids[2])
    [edge] = service.call("{ jobs(status: CANCELLED) { edges { node { id } } } }")["edges"]
    assert edge["node"]["id"] == ids[2]
    assert "cursor of an earlier page" in service.call(query, after="x")["message"]


def test_texts_that_no_database_stores_fail_by_themselves(service: Service) -> None:
    job = service.submit("Un.\x00", "\ud800", "x" * 20_001, "Deux.")
    assert (job["progress"]["done"], service.used()) == (3, 5)
    [chunk] = service.take()
    service.reply(chunk)
    assert service.nodes(job)[0] == ("Un.\N{REPLACEMENT CHARACTER}", None, "BAD_INPUT")
    assert "nothing of the job" in service.call(CHANGE % "retryJob", id=job["id"])["message"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"texts": []}, "at least one"),
        ({"texts": ["a"] * 2001}, "at most 2000"),
        ({"priority": "INTERACTIVE", "texts": ["a"] * 129}, "128"),
        ({"priority": "INTERACTIVE", "open": True}, "INTERACTIVE"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "deadline"),
        ({"callbackUrl": "ftp://host/"}, "callbackUrl"),
        ({"target": "tlh"}, "tlh"),
        ({"texts": ["a" * 20_000], "idempotencyKey": ""}, "idempotencyKey"),
        ({"texts": ["a" * 10_001]}, "10000"),
    ],
)
def test_what_is_wrong_is_said(service: Service, fields: dict[str, Any], said: str) -> None:
    answer = service.call(SUBMIT, input={"texts": ["Un."], "source": "fr", "target": "en", **fields})
    assert said in answer["message"]
    assert service.call("{ jobs { edges { cursor } } }") == {"edges": []}


def test_downloads_have_every_text(service: Service) -> None:
    texts = [f"Texte\t{number}\n" for number in range(450)]
    job = service.submit(*texts)
    while taken := service.take():
        for chunk in taken:
            service.reply(chunk)
    headers = {"Authorization": f"Bearer {service.secrets['ours']}"}
    tsv = service.client.get(f"/jobs/{job['id']}/translations.tsv", headers=headers)
    assert tsv.text.splitlines()[:2] == ["text\ttranslation\terror", "Texte\\t0\\n\tTEXTE\\t0\\n\t"]
    assert len(tsv.text.splitlines()) == 451
    ndjson = service.client.get(f"/jobs/{job['id']}/translations.ndjson", headers=headers)
    rows = [json.loads(line) for line in ndjson.text.splitlines()]
    assert [row["original"] for row in rows] == texts
    assert rows[449]["text"] == "TEXTE\t449\n"
    assert service.client.get(f"/jobs/{job['id']}/translations.pdf", headers=headers).status_code == 404


def test_metrics_count_jobs_and_what_is_left_of_them(service: Service, database: Database) -> None:
    service.submit("Un.", "Deux.")
    metrics = WebMetrics(Status, Address("127.0.0.1", 1), None, partial(database.run, store.counts))
    text = metrics.text().decode()
    assert 'tolk_jobs{status="QUEUED"} 1.0' in text
    assert 'tolk_job_texts{status="QUEUED"} 2.0' in text
    assert 'tolk_jobs{status="FAILED"} 0.0' in text


def test_what_expired_is_purged(service: Service, database: Database) -> None:
    job, kept = service.submit("Un."), service.submit("Deux.")
    service.call(CHANGE % "cancelJob", id=job["id"])
    assert service.job(job)["expiresAt"]
    service.age(8 * 86_400)
    assert service.job(job) is None
    while database.run(sweep.purge):
        pass
    count = select(func.count()).select_from(tables.job_segment)
    assert database.run(lambda connection: connection.scalar(count)) == 1
    assert service.job(kept)["id"] == kept["id"]
    assert service.call(CHANGE % "deleteJob", id=kept["id"])["id"]
    assert service.job(kept) is None


def test_a_database_goes_back_and_on_with_jobs_in_it(service: Service, database: Database) -> None:
    service.submit("Un.")
    database.downgrade("0002")
    database.upgrade()
    assert service.submit("Deux.")["status"] == "QUEUED"
    assert len(service.call("{ jobs { edges { cursor } } }")["edges"]) == 1


def test_an_address_that_nobody_would_call_back_is_the_operators_mistake(service: Service) -> None:
    error = service.submit("Un.", callbackUrl="https://host.example/")
    assert error["extensions"]["code"] == "UNAVAILABLE"
    assert "TOLK_WEBHOOK_SECRET" in error["message"]
    assert service.call("{ jobs { edges { node { id } } } }")["edges"] == []
