from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import MetaData, select, update
from werkzeug.test import TestResponse

from app import create_app
from app.accounts import keys, quotas
from app.accounts.keys import Key, Scope
from app.database.tables import api_key, usage
from app.database.transactions import Database
from app.settings import Settings
from app.translation.translator import EchoTranslator
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest

USAGE = "{ usage { characters limit resetsAt } }"


class Refusing(EchoTranslator):
    """Fails every request, with what a full queue is told by."""

    def ask(self, request: TranslateRequest) -> TranslateReply:
        raise TolkError(Code.OVERLOADED, "Later.", 1.0)


@pytest.fixture
def app(database: Database, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setattr(keys, "LOOKUP_LASTS", 0.0)
    return create_app(Settings(database=database.url), EchoTranslator())


@pytest.fixture
def command(app: Flask) -> Callable[..., Result]:
    return lambda *arguments: app.test_cli_runner().invoke(args=["keys", *arguments])


@pytest.fixture
def make(command: Callable[..., Result]) -> Callable[..., str]:
    """Makes a key, and returns its secret."""
    return lambda *arguments: command("create", *arguments).stdout.strip()


@pytest.fixture
def ask(app: Flask) -> Callable[..., TestResponse]:
    def post(
        secret: str | None = None, document: str = "{ languages { source } }", app: Flask = app, **environ: Any
    ) -> TestResponse:
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        return app.test_client().post("/graphql", json={"query": document}, headers=headers, environ_overrides=environ)

    return post


def translation(*texts: str) -> str:
    listed = ", ".join(f'"{text}"' for text in texts)
    return f'mutation {{ translate(input: {{texts: [{listed}], target: "en"}}) {{ translations {{ text }} }} }}'


def code(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.json["errors"][0]["extensions"]["code"]


def test_this_machine_is_let_in_until_there_is_a_key(
    ask: Callable[..., TestResponse], make: Callable[..., str]
) -> None:
    assert ask().status_code == 200
    secret = make("ops")
    refused = ask()
    assert code(refused) == (401, "UNAUTHENTICATED")
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert "flask --app app keys create" in refused.json["errors"][0]["message"]
    assert ask(secret).status_code == 200


def test_who_is_not_on_this_machine_needs_a_key(
    database: Database, ask: Callable[..., TestResponse], make: Callable[..., str]
) -> None:
    public = create_app(Settings(database=database.url, host="0.0.0.0"), EchoTranslator())
    for refused in (
        ask(app=public),
        ask(REMOTE_ADDR="192.0.2.1"),
        ask(HTTP_HOST="rebound.example:8000"),  # a page elsewhere, whose name leads to this machine
        ask(HTTP_HOST="[2001:db8::1]:8000"),
        ask(HTTP_HOST=""),
    ):
        assert code(refused) == (401, "UNAUTHENTICATED")
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert ask(HTTP_HOST=host).status_code == 200
    assert ask(make("ops"), app=public, REMOTE_ADDR="192.0.2.1", HTTP_HOST="tolk.example").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic b3BzOm9wcw==",
        "Bearer tolk_",
        f"Bearer tolk_{'x' * 43}",
        "Bearer é",
        f"Bearer {'x' * 9000}",
        "\xff\xfe",
        "Token KEY",
        "KEY",
    ],
)
def test_a_header_without_a_key_of_ours_is_refused(app: Flask, make: Callable[..., str], header: str) -> None:
    headers = {"Authorization": header.replace("KEY", make("ops"))}
    assert code(app.test_client().get("/graphql?query={languages{source}}", headers=headers)) == (
        401,
        "UNAUTHENTICATED",
    )


def test_health_and_the_pages_need_no_key(app: Flask, make: Callable[..., str]) -> None:
    make("ops")
    client = app.test_client()
    for path in ("/", "/status", "/healthz", "/readyz"):
        assert client.get(path).status_code == 200
    assert client.get("/graphql", headers={"Accept": "text/html"}).status_code == 200
    for path in ("/graphql", "/api/graphql"):
        answer = client.post(path, json={"query": "{ languages { source } }"}, headers={"Accept": "text/html"})
        assert answer.status_code == 401


def test_a_key_is_for_its_scopes(ask: Callable[..., TestResponse], make: Callable[..., str]) -> None:
    translate, status = make("a"), make("b", "--scope", "status")
    both = make("c", "--scope", "status", "--scope", "translate")
    asked = {"translate": translation("Un."), "models": "{ models { name } }", "status": "{ status { deadLetters } }"}
    assert {
        (name, key): ask(secret, document).status_code
        for name, document in asked.items()
        for key, secret in (("a", translate), ("b", status), ("c", both))
    } == {
        ("translate", "a"): 200, ("translate", "b"): 403, ("translate", "c"): 200,
        ("models", "a"): 200, ("models", "b"): 403, ("models", "c"): 200,
        ("status", "a"): 403, ("status", "b"): 200, ("status", "c"): 200,
    }  # fmt: skip
    assert code(ask(status, translation("Un."))) == (403, "FORBIDDEN")


def test_a_revoked_key_is_refused_and_the_last_one_leaves_nobody_in_unasked(
    ask: Callable[..., TestResponse], make: Callable[..., str], command: Callable[..., Result]
) -> None:
    first, second = make("first"), make("second")
    assert command("revoke", "first").exit_code == 0
    assert code(ask(first)) == (401, "UNAUTHENTICATED")
    assert ask(second).status_code == 200
    assert command("revoke", "first").exit_code == 1
    command("revoke", "second")
    assert code(ask(second)) == (401, "UNAUTHENTICATED")
    assert code(ask()) == (401, "UNAUTHENTICATED")


def test_a_rotated_key_has_a_new_secret_and_its_old_usage(
    ask: Callable[..., TestResponse], make: Callable[..., str], command: Callable[..., Result]
) -> None:
    old = make("ops", "--characters-per-day", "10")
    assert ask(old, translation("12345")).status_code == 200
    new = command("rotate", "ops", "--keep", "60").stdout.strip()
    assert ask(old).status_code == ask(new).status_code == 200
    assert ask(new, USAGE).json["data"]["usage"]["characters"] == 5
    newest = command("rotate", "ops").stdout.strip()
    assert [ask(secret).status_code for secret in (old, new, newest)] == [401, 401, 200]


def test_only_a_hash_is_stored_and_the_secret_is_shown_once(
    database: Database, make: Callable[..., str], command: Callable[..., Result]
) -> None:
    secret = make("ops")
    assert re.fullmatch(r"tolk_[\w-]{43}", secret)
    tables = MetaData()
    tables.reflect(database.engine)
    with database.engine.connect() as connection:
        stored = [row for table in tables.tables.values() for row in connection.execute(select(table))]
    assert "ops" in str(stored)
    assert secret.removeprefix("tolk_") not in str(stored)
    assert secret not in command("list").output


def test_a_key_that_was_looked_up_is_good_for_two_seconds_at_most(database: Database) -> None:
    now = 0.0
    ring = keys.KeyRing(database, lambda: now)
    secret = database.run(lambda connection: keys.create(connection, "ops", [Scope.TRANSLATE]))
    assert ring.find(secret) is ring.find(secret)
    database.run(lambda connection: keys.revoke(connection, "ops"))
    now = 1.4
    assert ring.find(secret) is not None
    now = 2.1
    assert ring.find(secret) is None


def test_one_thread_looks_a_key_up_again_while_the_others_go_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, run, looking, go_on = 0.0, database.run, threading.Event(), threading.Event()
    ring = keys.KeyRing(database, lambda: now)
    assert not ring.exist()
    secret = database.run(lambda connection: keys.create(connection, "ops", [Scope.TRANSLATE]))
    key = ring.find(secret)

    def slow(work: Callable[..., Any]) -> Any:
        looking.set()
        assert go_on.wait(10)
        return run(work)

    monkeypatch.setattr(database, "run", slow)
    now = 1.9
    for look, before, after in ((ring.exist, False, True), (lambda: ring.find(secret), key, key)):
        looking.clear()
        go_on.clear()
        with ThreadPoolExecutor() as threads:
            first = threads.submit(look)
            assert looking.wait(10)
            assert look() == before
            go_on.set()
            assert first.result(10) == after
        assert look() == after


def test_who_finds_nothing_cached_waits_for_the_look_up_that_is_running(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls, go_on, entered = database.run, list[object](), threading.Event(), threading.Semaphore(0)

    def clock() -> float:
        entered.release()
        return time.monotonic()

    def slow(work: Callable[..., Any]) -> Any:
        calls.append(work)
        assert go_on.wait(10)
        if len(calls) == 1:
            raise TolkError(Code.UNAVAILABLE, "The database does not answer.")
        return run(work)

    monkeypatch.setattr(database, "run", slow)
    ring = keys.KeyRing(database, clock)
    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(ring.exist) for _ in range(2)]
        assert all(entered.acquire(timeout=10) for _ in asked)
        go_on.set()
        for each in asked:
            with pytest.raises(TolkError, match="does not answer"):
                each.result(10)
    assert len(calls) == 1
    assert not ring.exist()


@pytest.mark.parametrize("name", ["", " ", "a" * 101, "a\nb", "a\x00", " a", "<b>"])
def test_a_name_that_is_none_is_refused(command: Callable[..., Result], name: str) -> None:
    refused = command("create", "--", name)
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: A name has 1 to 100")


def test_the_list_says_what_there_is(
    ask: Callable[..., TestResponse], make: Callable[..., str], command: Callable[..., Result]
) -> None:
    secret = make("team one", "--requests-per-minute", "5", "--characters-per-day", "100")
    make("gone")
    command("revoke", "gone")
    ask(secret, translation("12345"))
    lines = command("list").output.splitlines()
    assert re.fullmatch(r"team one +translate +5 +5 of 100  made \d{4}-\d\d-\d\d \d\d:\d\d UTC", lines[1])
    assert re.fullmatch(r"gone +translate +- +0 of -  revoked \d{4}-\d\d-\d\d \d\d:\d\d UTC", lines[2])


def test_requests_a_minute_are_limited(ask: Callable[..., TestResponse], make: Callable[..., str]) -> None:
    secret = make("ops", "--requests-per-minute", "3")
    answers = [ask(secret, translation("Un.")) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert code(answers[3]) == (429, "RATE_LIMITED")
    assert 15 <= int(answers[3].headers["Retry-After"]) <= 20
    assert ask(secret).status_code == 200  # what translates nothing is not counted


def test_a_request_more_is_allowed_when_its_share_of_the_minute_has_passed(
    database: Database, ask: Callable[..., TestResponse], make: Callable[..., str]
) -> None:
    secret = make("ops", "--requests-per-minute", "2")
    assert [ask(secret, translation("Un.")).status_code for _ in range(3)] == [200, 200, 429]
    later = update(usage).values(next_request=usage.c.next_request - 30)
    database.run(lambda connection: connection.execute(later))
    assert [ask(secret, translation("Un.")).status_code for _ in range(2)] == [200, 429]


def test_characters_a_day_are_limited_and_told(
    database: Database, ask: Callable[..., TestResponse], make: Callable[..., str], command: Callable[..., Result]
) -> None:
    secret = make("ops", "--characters-per-day", "10")
    assert ask(secret, translation("1234", "5678")).status_code == 200
    refused = ask(secret, translation("123"))
    assert code(refused) == (429, "RATE_LIMITED")
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert ask(secret, translation("12")).status_code == 200
    told = ask(secret, USAGE).json["data"]["usage"]
    assert (told["characters"], told["limit"]) == (10, 10)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00\+00:00", told["resetsAt"])
    assert code(ask(secret, translation("12345678901"))) == (400, "BAD_INPUT")  # no day is long enough
    yesterday = update(usage).values(day=usage.c.day - 1)
    database.run(lambda connection: connection.execute(yesterday))
    assert ask(secret, USAGE).json["data"]["usage"]["characters"] == 0
    assert ask(secret, translation("1234567890")).status_code == 200
    assert command("limit", "ops").exit_code == 0
    assert ask(secret, translation("12345678901")).status_code == 200
    assert ask(secret, USAGE).json["data"]["usage"] == {"characters": 21, "limit": None, "resetsAt": told["resetsAt"]}


def test_without_a_key_there_is_no_usage(ask: Callable[..., TestResponse]) -> None:
    assert ask(None, USAGE).json == {"data": {"usage": None}}


def test_what_fails_costs_nothing(
    database: Database, ask: Callable[..., TestResponse], make: Callable[..., str]
) -> None:
    secret = make("ops", "--characters-per-day", "10")
    failing = create_app(Settings(database=database.url), Refusing())
    assert code(ask(secret, translation("123"), app=failing)) == (503, "OVERLOADED")
    assert ask(secret, USAGE).json["data"]["usage"]["characters"] == 0


def test_processes_count_together(database: Database, app: Flask) -> None:
    def key() -> Key:
        return Key(1, "ops", frozenset(), requests_per_minute=20, characters_per_day=1_000, created=0)

    database.run(lambda connection: keys.create(connection, "ops", [Scope.TRANSLATE]))
    processes = [Database(database.url) for _ in range(4)]

    def charge(number: int) -> bool:
        try:
            processes[number % 4].run(lambda connection: quotas.charge(connection, key(), 3, quotas.today()))
        except TolkError:
            return False
        return True

    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        charged = sum(pool.map(charge, range(60)))
    refilled = math.ceil((time.monotonic() - began) * 20 / 60)  # one every three seconds
    assert 20 <= charged <= 20 + refilled
    assert database.run(lambda connection: quotas.used(connection, key())).characters == 3 * charged
    for process in processes:
        process.close()


def test_a_clock_that_is_behind_does_not_begin_an_earlier_day_anew(database: Database, app: Flask) -> None:
    key = Key(1, "ops", frozenset(), None, characters_per_day=10, created=0)
    database.run(lambda connection: keys.create(connection, "ops", [Scope.TRANSLATE]))
    database.run(lambda connection: quotas.charge(connection, key, 8, quotas.today()))
    with pytest.raises(TolkError, match="8 of the 10"):
        database.run(lambda connection: quotas.charge(connection, key, 8, quotas.today() - 1))


@pytest.mark.parametrize("jump", [3600, 30 * 86_400, 400 * 86_400])
def test_a_clock_that_jumped_and_came_back_locks_no_key(
    database: Database, ask: Callable[..., TestResponse], make: Callable[..., str], jump: int
) -> None:
    secret = make("ops", "--requests-per-minute", "2", "--characters-per-day", "10")
    assert ask(secret, translation("12345678")).status_code == 200
    ahead = update(usage).values(next_request=usage.c.next_request + jump, day=usage.c.day + jump // 86_400)
    database.run(lambda connection: connection.execute(ahead))
    assert [ask(secret, translation("1")).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("keep", ["inf", "nan", "1e300", "-1"])
def test_an_old_secret_is_kept_for_a_year_at_most(
    make: Callable[..., str], command: Callable[..., Result], keep: str
) -> None:
    make("ops")
    refused = command("rotate", "ops", "--keep", keep)
    assert refused.exit_code == 1
    assert "--keep: 0 to 31622400 seconds were expected" in refused.output
    assert command("list").exit_code == 0


def test_the_list_shows_a_key_whose_old_secret_an_earlier_release_kept_for_ever(
    database: Database, make: Callable[..., str], command: Callable[..., Result]
) -> None:
    make("ops")
    database.run(lambda connection: connection.execute(update(api_key).values(previous_until=math.inf)))
    assert "its old secret holds until the key is revoked" in command("list").output
