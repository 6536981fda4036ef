from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app import create_app
from app.accounts import idempotency, keys
from app.accounts.keys import Scope
from app.accounts.ledger import Ledger
from app.accounts.repeats import Repeats
from app.database.tables import idempotent_request
from app.database.transactions import Database
from app.monitoring.recent_errors import RecentErrors
from app.settings import Settings
from app.translation.context import Context
from app.translation.translate import TranslatedTexts, abandon, translate
from app.translation.translator import EchoTranslator
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import Failure, TextResult, TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.registry.file import load_registry

DOCUMENT = """mutation ($input: TranslateInput!) {
  translate(input: $input) { requestId model via translations { text error { code } } } }"""


@dataclass
class Counting(EchoTranslator):
    """An echo that counts, waits for `go`, and fails with the last of `failures`; `#text` fails with what it says."""

    calls: list[tuple[str, ...]] = field(default_factory=list)
    failures: list[TolkError | None] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__()
        self.go.set()

    def ask(self, request: TranslateRequest) -> TranslateReply:
        self.calls.append(request.texts)
        self.go.wait(30)
        if self.failures and (failure := self.failures.pop()):
            raise failure
        return TranslateReply(request.model, results=tuple(map(self.result, request.texts)))

    def result(self, text: str) -> TextResult:
        if text.startswith("#"):
            return TextResult(error=Failure(Code(text[1:]), "Failed."))
        return TextResult(text=f"{text} ({len(self.calls)})")


class Service:
    """Two web processes on one database, which share a translator here."""

    def __init__(self, database: Database, pool: ThreadPoolExecutor) -> None:
        self.database = database
        self.translator = Counting()
        self.secret = database.run(lambda connection: keys.create(connection, "ops", list(Scope), None, 1_000))
        self.other = database.run(lambda connection: keys.create(connection, "other", list(Scope)))
        self.pool = pool
        self.serve(Settings().models)

    def serve(self, models: Path) -> None:
        settings = Settings(database=self.database.url, models=models)
        self.clients = [create_app(settings, self.translator).test_client() for _ in range(2)]

    def send(self, key: str | None, *texts: str, to: int = 0, secret: str | None = None, **fields: Any) -> Any:
        """The payload, or the code of the error."""
        headers = {"Authorization": f"Bearer {secret or self.secret}"}
        variables = {"input": {"texts": texts, "target": "en", "idempotencyKey": key, **fields}}
        body = {"query": DOCUMENT, "variables": variables}
        answer = self.clients[to].application.test_client().post("/graphql", json=body, headers=headers).json
        return answer["data"]["translate"] if answer["data"] else answer["errors"][0]["extensions"]["code"]

    def begin(self, *arguments: Any, **options: Any) -> Future[Any]:
        return self.pool.submit(self.send, *arguments, **options)

    @property
    def charged(self) -> int:
        headers = {"Authorization": f"Bearer {self.secret}"}
        answer = self.clients[0].post("/graphql", json={"query": "{ usage { characters } }"}, headers=headers)
        characters: int = answer.json["data"]["usage"]["characters"]
        return characters

    def rows(self) -> int | None:
        count = select(func.count()).select_from(idempotent_request)
        return self.database.run(lambda connection: connection.scalar(count))

    def age(self, seconds: float) -> None:
        table = idempotent_request
        older = update(table).values(created=table.c.created - seconds, deadline=table.c.deadline - seconds)
        self.database.run(lambda connection: connection.execute(older))


@pytest.fixture
def service(database: Database) -> Iterator[Service]:
    with ThreadPoolExecutor(40) as pool:
        yield Service(database, pool)


def test_a_repeat_gets_the_first_answer_and_is_not_paid_for(service: Service) -> None:
    first = service.send("a", "Un.", "Deux.")
    assert first["translations"] == [{"text": "Un. (1)", "error": None}, {"text": "Deux. (1)", "error": None}]
    assert service.send("a", "Un.", "Deux.", to=1) == first
    assert service.send("a", "Un.", "Deux.", timeout=3) == first  # how long one would wait is no part of the input
    assert service.translator.calls == [("Un.", "Deux.")]
    assert service.charged == 8


def test_without_a_key_every_request_is_made(service: Service, eventually: Callable[..., None]) -> None:
    assert service.send(None, "Un.") != service.send(None, "Un.")
    assert (len(service.translator.calls), service.charged) == (2, 6)
    eventually(lambda: service.rows() == 0)


@pytest.mark.parametrize("key", ["a", None])
def test_a_process_that_dies_takes_nothing_with_it(
    service: Service, key: str | None, eventually: Callable[..., None]
) -> None:
    service.translator.go.clear()
    lost = service.begin(key, "Un.")  # its process dies, as far as the database knows
    eventually(lambda: service.translator.calls)
    assert service.charged == 3
    service.age(10 + idempotency.ABANDONED)
    assert service.charged == 0
    go, service.translator.go = service.translator.go, threading.Event()
    service.translator.go.set()
    assert service.send(None, "Deux.", to=1)["translations"][0]["text"]
    assert service.charged == 5
    go.set()
    lost.result()


@pytest.mark.parametrize("change", [{"texts": ["Une."]}, {"source": "fr"}, {"model": "fr-en"}, {"texts": ["U", "n."]}])
def test_another_input_under_the_same_key_is_refused(service: Service, change: dict[str, Any]) -> None:
    service.send("a", "Un.")
    assert service.send("a", **{"texts": ["Un."], **change}) == "BAD_INPUT"
    assert service.charged == 3


def test_a_key_is_its_principals_own(service: Service) -> None:
    first = service.send("a", "Un.")
    assert service.send("a", "Secret.", secret=service.other)["translations"][0]["text"] == "Secret. (2)"
    assert service.send("a", "Un.") == first


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x00", "a\nb", "\u202e"])
def test_a_key_that_is_none_is_refused(service: Service, key: str) -> None:
    assert service.send(key, "Un.") == "BAD_INPUT"
    assert service.translator.calls == []


def test_repeats_while_the_first_runs_join_it(service: Service, eventually: Callable[..., None]) -> None:
    service.translator.go.clear()
    first = service.begin("a", "Un.")
    eventually(lambda: service.translator.calls)
    others = [service.begin("a", "Un.", to=number % 2) for number in range(8)]
    service.translator.go.set()
    assert {repr(each.result()) for each in others} == {repr(first.result())}
    assert service.translator.calls == [("Un.",)]
    assert service.charged == 3


def test_of_many_at_once_one_is_made(service: Service) -> None:
    answers = [service.begin("a", "Un.", to=number % 2) for number in range(30)]
    assert len({repr(each.result()) for each in answers}) == 1
    assert (len(service.translator.calls), service.charged, service.rows()) == (1, 3, 1)


def test_who_joins_waits_no_longer_than_he_wants_to(service: Service, eventually: Callable[..., None]) -> None:
    service.translator.go.clear()
    first = service.begin("a", "Un.")
    eventually(lambda: service.translator.calls)
    assert service.send("a", "Un.", timeout=0.2) == "TIMEOUT"
    service.translator.go.set()
    assert first.result() == service.send("a", "Un.")


def test_who_joins_and_hangs_up_is_not_waited_for(database: Database, eventually: Callable[..., None]) -> None:
    translator = Counting()
    ledger = Ledger(database)
    repeats = Repeats(ledger)
    settings = Settings()
    registry = load_registry(settings.models)

    def send(request_id: str) -> TranslatedTexts:
        context = Context(
            settings, registry, translator, request_id, time.time(), None, "", ledger, repeats, RecentErrors()
        )
        return translate(context, ["Un."], source=None, target="en", timeout=60, idempotency_key="a")

    translator.go.clear()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(send, "first")
        eventually(lambda: translator.calls)
        joined = pool.submit(send, "second")
        eventually(lambda: abandon(translator, repeats, "second", None) or joined.done())
        translator.go.set()
        with pytest.raises(TolkError, match="cancelled"):
            joined.result()
        assert first.result().results[0].text == "Un. (1)"


def test_a_repeat_that_is_cancelled_as_it_takes_over_leaves_the_request_to_others(service: Service) -> None:
    """The first gives up between two looks of the repeat; the cancel comes before the next one."""
    ledger, found = Ledger(service.database), []
    wanted = idempotency.Claim("", "a", "hash", "second", time.time() + 60, 0, 0)
    ledger.claim(replace(wanted, request_id="first"), None)
    repeats = Repeats(ledger)
    claim = ledger.claim

    def cancelled_meanwhile(*arguments: Any, again: bool = False) -> Any:
        if not again:
            return claim(*arguments)
        assert repeats.cancel("second", None)
        ledger.release(replace(wanted, request_id="first"))
        found.append(claim(*arguments, again=True))
        return found[-1]

    ledger.claim = cancelled_meanwhile  # type: ignore[method-assign]
    with pytest.raises(TolkError, match="cancelled"):
        repeats.claim(wanted, None)
    assert found == [wanted]
    assert service.rows() == 0
    assert not repeats.cancel("second", None)


@pytest.mark.parametrize("code", [Code.TIMEOUT, Code.OVERLOADED, Code.UNAVAILABLE, Code.CANCELLED, Code.INTERNAL])
def test_a_request_that_failed_is_made_anew(service: Service, code: Code) -> None:
    service.translator.failures = [TolkError(code, "Failed.")]
    assert service.send("a", "Un.") == code
    assert service.charged == 0
    assert service.send("a", "Un.")["translations"][0]["text"] == "Un. (2)"
    assert service.charged == 3


def test_who_joined_a_request_that_failed_makes_it(service: Service, eventually: Callable[..., None]) -> None:
    service.translator.go.clear()
    service.translator.failures = [TolkError(Code.CANCELLED, "Cancelled.")]
    first = service.begin("a", "Un.")
    eventually(lambda: service.translator.calls)
    second = service.begin("a", "Un.", to=1)
    service.translator.go.set()
    assert first.result() == "CANCELLED"
    assert second.result()["translations"][0]["text"] == "Un. (2)"
    assert service.charged == 3


@pytest.mark.parametrize("key", ["a", None])
def test_what_is_delivered_is_paid_for_whatever_becomes_of_its_neighbours(service: Service, key: str | None) -> None:
    assert service.send(key, "Un.", "#TIMEOUT")["translations"][1] == {"text": None, "error": {"code": "TIMEOUT"}}
    assert service.charged == 3


def test_a_repeat_translates_and_pays_what_failed_in_passing_alone(service: Service) -> None:
    texts = ["Un.", "#TIMEOUT", "#BAD_INPUT", "Deux."]
    first = service.send("a", *texts)
    service.translator.result = lambda text: TextResult(text=f"{text} again")  # type: ignore[method-assign]
    second = service.send("a", *texts, to=1)
    assert service.translator.calls == [tuple(texts), ("#TIMEOUT",)]
    assert [each["text"] for each in second["translations"]] == ["Un. (1)", "#TIMEOUT again", None, "Deux. (1)"]
    assert second["translations"][2:] == first["translations"][2:]
    assert service.send("a", *texts) == second
    assert service.charged == len("Un.") + len("Deux.") + len("#TIMEOUT")


def test_a_repeat_of_a_part_that_fails_leaves_what_was_delivered(
    service: Service, eventually: Callable[..., None]
) -> None:
    """Whether it is told so, or its process dies."""
    service.send("a", "Un.", "#TIMEOUT")
    service.translator.failures = [TolkError(Code.UNAVAILABLE, "Away.")]
    assert service.send("a", "Un.", "#TIMEOUT") == "UNAVAILABLE"
    assert service.charged == 3
    service.translator.go.clear()
    lost = service.begin("a", "Un.", "#TIMEOUT")
    eventually(lambda: len(service.translator.calls) == 3)
    assert service.charged == 3 + len("#TIMEOUT")
    service.age(10 + idempotency.ABANDONED)
    assert service.charged == 3
    go, service.translator.go = service.translator.go, threading.Event()
    service.translator.go.set()
    service.send("b", "Deux.")  # sweeps
    again = service.send("a", "Un.", "#TIMEOUT")
    assert again["translations"][0]["text"] == "Un. (1)"
    assert service.translator.calls[-1] == ("#TIMEOUT",)
    assert service.charged == 3 + 5
    go.set()
    lost.result()


def test_many_repeats_of_a_part_are_one(service: Service) -> None:
    service.send("a", "Un.", "#TIMEOUT")
    service.translator.result = lambda text: TextResult(text="again")  # type: ignore[method-assign]
    answers = [service.begin("a", "Un.", "#TIMEOUT", to=number % 2) for number in range(20)]
    assert len({repr(each.result()) for each in answers}) == 1
    assert (len(service.translator.calls), service.charged) == (2, 3 + len("#TIMEOUT"))


def test_texts_that_are_too_long_are_part_of_the_input(service: Service) -> None:
    long, other = "x" * 20_001, "y" * 20_001
    assert service.send("a", "Un.", long)["translations"][1]["error"] == {"code": "BAD_INPUT"}
    assert service.send("a", "Un.", other) == "BAD_INPUT"
    assert service.send("a", long, "Un.") == "BAD_INPUT"
    assert service.send("a", "Un.", long)["translations"][0]["text"] == "Un. (1)"


def test_a_text_that_fails_for_good_is_answered_again_and_costs_nothing(service: Service) -> None:
    first = service.send("a", "Un.", "#BAD_INPUT")
    assert service.send("a", "Un.", "#BAD_INPUT") == first
    assert (len(service.translator.calls), service.charged) == (1, 3)


def test_an_abandoned_request_is_taken_over_after_its_deadline_and_paid_for_once(
    service: Service, eventually: Callable[..., None]
) -> None:
    service.translator.go.clear()
    lost = service.begin("a", "Un.")  # its process dies, as far as the database knows
    eventually(lambda: service.translator.calls)
    assert service.send("a", "Un.", to=1, timeout=0.2) == "TIMEOUT"
    service.age(30)
    taken = service.begin("a", "Un.", to=1)
    eventually(lambda: len(service.translator.calls) == 2)
    service.translator.go.set()
    assert taken.result() == service.send("a", "Un.")
    lost.result()
    assert taken.result() == service.send("a", "Un.")
    assert (len(service.translator.calls), service.charged) == (2, 3)


def test_a_takeover_that_fails_gives_back_what_the_first_had_paid(
    service: Service, eventually: Callable[..., None]
) -> None:
    service.translator.go.clear()
    lost = service.begin("a", "Un.")
    eventually(lambda: service.translator.calls)
    assert service.charged == 3
    service.age(30)
    service.translator.failures = [TolkError(Code.UNAVAILABLE, "Away.")] * 2
    taken = service.begin("a", "Un.", to=1)
    eventually(lambda: len(service.translator.calls) == 2)
    service.translator.go.set()
    assert taken.result() == lost.result() == "UNAVAILABLE"
    assert (service.charged, service.rows()) == (0, 0)


def test_an_answer_is_given_again_for_a_day(service: Service) -> None:
    first = service.send("a", "Un.")
    service.age(24 * 3600 - 60)
    assert service.send("a", "Un.") == first
    service.age(120)
    assert service.send("a", "Un.")["translations"][0]["text"] == "Un. (2)"
    assert (service.charged, service.rows()) == (6, 1)


def test_repeats_count_as_requests(service: Service) -> None:
    service.database.run(lambda connection: keys.limit(connection, "ops", requests_per_minute=2))
    assert [type(service.send("a", "Un.")) for _ in range(2)] == [dict, dict]
    assert service.send("a", "Un.") == "RATE_LIMITED"
    assert service.rows() == 1
    assert service.send("b", "Un.") == "RATE_LIMITED"
    assert service.rows() == 1  # what was refused leaves nothing


def test_an_answer_holds_any_text(service: Service) -> None:
    text = "\x00 \ud800 \U0010ffff '; DROP TABLE api_key; --"
    first = service.send("a", text)
    assert first["translations"][0]["text"] == f"{text} (1)"
    assert service.send("a", text) == first


def test_an_answer_outlives_a_database_that_cannot_take_it(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    eventually: Callable[..., None],
) -> None:
    settled = Database.settle

    def lose(database: Database, work: Callable[..., object]) -> None:
        def fail(connection: Any) -> None:
            connection.close()
            raise TolkError(Code.UNAVAILABLE, "gone")

        settled(database, fail)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "settle", lose)
        assert service.send("a", "Un.")["translations"][0]["text"] == "Un. (1)"
    eventually(lambda: "could not write to the database: gone" in caplog.text)
    service.age(30)
    assert service.send("a", "Un.")["translations"][0]["text"] == "Un. (2)"
    assert service.charged == 3


def test_without_api_keys_too_a_request_is_made_once(database: Database) -> None:
    translator = Counting()
    client = create_app(Settings(database=database.url), translator).test_client()
    variables = {"input": {"texts": ["Un."], "target": "en", "idempotencyKey": "a"}}
    answers = [client.post("/graphql", json={"query": DOCUMENT, "variables": variables}).json for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(translator.calls) == 1


def test_what_was_abandoned_counts_as_used_no_longer(service: Service, eventually: Callable[..., None]) -> None:
    service.translator.go.clear()
    lost = service.begin("a", "Un.")
    eventually(lambda: service.translator.calls)
    assert service.charged == 3
    service.age(10 + idempotency.ABANDONED)
    assert (service.charged, service.rows()) == (0, 1)
    service.translator.go.set()
    lost.result()


def test_what_was_abandoned_and_never_sent_again_is_given_back(
    service: Service, eventually: Callable[..., None]
) -> None:
    service.translator.go.clear()
    lost = service.begin("a", "Un.")
    eventually(lambda: service.translator.calls)
    service.age(10 + idempotency.ABANDONED)
    go, service.translator.go = service.translator.go, threading.Event()
    service.translator.go.set()
    service.send("b", "Deux.")
    assert (service.charged, service.rows()) == (5, 1)
    go.set()
    lost.result()
    assert (service.charged, service.rows()) == (5, 1)


@pytest.fixture
def german(tmp_path: Path) -> Path:
    """A models.toml by which one translates from French to German through English."""
    path = tmp_path / "german.toml"
    entry = '[models.{0}-{1}]\nreference = "fr-en"\npairs = [{{ source = "{0}", target = "{1}" }}]\n'
    path.write_text(entry.format("fr", "en") + entry.format("en", "de"))
    return path


def test_through_another_language_too_it_is_one_request_that_costs_its_source(service: Service, german: Path) -> None:
    service.serve(german)
    first = service.send("a", "Un.", "#BAD_INPUT", source="fr", target="de")
    assert first["translations"] == [
        {"text": "Un. (1) (2)", "error": None},
        {"text": None, "error": {"code": "BAD_INPUT"}},
    ]
    assert (first["model"], first["via"], service.charged) == ("fr-en+en-de", ["en"], 3)
    # What was answered is answered again, though a model is there by now that needs no English.
    german.write_text(german.read_text().replace('target = "en"', 'target = "de"'))
    service.serve(german)
    assert service.send("a", "Un.", "#BAD_INPUT", source="fr", target="de", to=1) == first
    assert service.translator.calls == [("Un.", "#BAD_INPUT"), ("Un. (1)",)]
    assert service.send(None, "Un.", source="fr", target="de")["via"] == []
    assert service.charged == 6


@pytest.mark.parametrize("key", ["a", None])
def test_where_the_second_leg_fails_nothing_is_paid_for(service: Service, german: Path, key: str | None) -> None:
    service.serve(german)
    service.translator.failures = [TolkError(Code.OVERLOADED, "Full."), None]
    assert service.send(key, "Un.", source="fr", target="de") == "OVERLOADED"
    assert (len(service.translator.calls), service.charged, service.rows()) == (2, 0, 0)
    service.translator.failures = []
    assert service.send(key, "Un.", source="fr", target="de")["translations"][0]["text"] == "Un. (3) (4)"


def test_time_is_unix_time(service: Service) -> None:
    service.send("a", "Un.")
    with service.database.engine.connect() as connection:
        row = connection.execute(select(idempotent_request)).one()
    assert time.time() - 30 < row.created < time.time() < row.deadline < time.time() + 11
