from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from sqlalchemy import select, update

from app.database.tables import job as table
from app.database.tables import job_callback
from app.database.transactions import Database
from app.jobs import store, webhooks
from app.jobs.delivery import DeliveryError, is_public, post, secret_of, spelled
from app.jobs.job import Status
from app.jobs.webhooks import DELAYS, Callback, Webhooks
from tests.app.jobs.conftest import create_job

SECRET = "a secret of the whole service"


class Receiver(BaseHTTPRequestHandler):
    """Answers as its path says, and keeps what it was sent."""

    received: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []
    released: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        if self.path == "/hangs":
            self.released.wait(20)
            return
        if self.path == "/drips":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            with suppress(OSError):
                while not self.released.wait(0.05):
                    self.wfile.write(b"X: y\r\n"[:1])
            return
        self.send_response({"/fails": 500, "/moved": 302, "/gone": 410}.get(self.path, 204))
        if self.path == "/moved":
            self.send_header("Location", "/target")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    Receiver.received = []
    Receiver.released = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Receiver.released.set()
    server.shutdown()
    server.server_close()


def ended(database: Database, url: str, principal: str = "7") -> int:
    """The number of a job that has ended and wants to tell so."""

    def make(connection: Any) -> int:
        number = create_job(connection, principal=principal, callback_url=url)
        store.end(connection, number, Status.SUCCEEDED)
        return number

    return database.run(make)


def callback(database: Database, number: int) -> Callback:
    found = database.run(lambda connection: webhooks.find(connection, number))
    assert found is not None
    return found


def due_now(database: Database) -> None:
    database.run(lambda connection: connection.execute(update(job_callback).values(next_attempt=time.time())))


def test_a_receiver_is_told_once_and_can_check_who_tells(database: Database, receiver: str) -> None:
    number = ended(database, f"{receiver}/told?x=1")
    hooks = Webhooks(database, SECRET, private=True)
    assert (hooks.deliver(), hooks.deliver()) == (1, 0)
    [(path, headers, body)] = Receiver.received
    assert path == "/told?x=1"
    # as https://www.standardwebhooks.com has a receiver check it
    key = base64.b64decode(spelled(secret_of(SECRET, "7")).removeprefix("whsec_"))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}".encode()
    expected = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 10
    told = json.loads(body)
    uuid = database.run(lambda connection: connection.scalar(select(table.c.uuid).where(table.c.id == number)))
    assert (told["type"], told["data"]["id"]) == ("job.succeeded", uuid)
    state = callback(database, number)
    assert (state.attempts, state.next_attempt, state.error) == (1, None, None)
    assert state.delivered is not None


@pytest.mark.parametrize(
    ("path", "error"), [("/fails", "500"), ("/moved", "redirects are not followed"), ("/hangs", "no answer within")]
)
def test_what_is_not_accepted_is_tried_again(database: Database, receiver: str, path: str, error: str) -> None:
    number = ended(database, receiver + path)
    hooks = Webhooks(database, SECRET, private=True, timeout=0.5)
    before = time.time()
    hooks.deliver()
    state = callback(database, number)
    assert error in (state.error or "")
    assert state.next_attempt is not None
    assert DELAYS[0] <= state.next_attempt - before < DELAYS[0] + 10
    assert hooks.deliver() == 0
    due_now(database)
    hooks.deliver()
    assert [each for each, _, _ in Receiver.received] == [path, path]  # and never the redirect's target
    first, second = (headers["webhook-id"] for _, headers, _ in Receiver.received)
    assert first == second


def test_attempts_are_bounded(database: Database, receiver: str) -> None:
    number = ended(database, f"{receiver}/fails")
    hooks = Webhooks(database, SECRET, private=True)
    for _ in range(len(DELAYS) + 1):
        due_now(database)
        hooks.deliver()
    state = callback(database, number)
    assert (state.attempts, state.next_attempt, state.delivered) == (len(DELAYS) + 1, None, None)


def test_a_receiver_that_is_gone_is_not_asked_again(database: Database, receiver: str) -> None:
    number = ended(database, f"{receiver}/gone")
    Webhooks(database, SECRET, private=True).deliver()
    assert callback(database, number).next_attempt is None


def test_a_job_that_runs_again_tells_nothing(database: Database, receiver: str) -> None:
    number = ended(database, receiver)
    database.run(lambda connection: store.change(connection, number, status=Status.QUEUED))
    assert Webhooks(database, SECRET, private=True).deliver() == 0
    assert Receiver.received == []


def test_a_results_worker_without_the_secret_says_so(database: Database, receiver: str) -> None:
    number = ended(database, receiver)
    Webhooks(database, None, private=True).deliver()
    state = callback(database, number)
    assert "TOLK_WEBHOOK_SECRET" in (state.error or "")
    assert state.next_attempt is not None  # the operator may still set it
    assert Receiver.received == []


def test_each_key_has_a_secret_of_its_own() -> None:
    assert secret_of(SECRET, "1") != secret_of(SECRET, "2")
    assert spelled(secret_of(SECRET, "1")).startswith("whsec_")


def test_an_answer_that_never_ends_is_given_up(receiver: str) -> None:
    before = time.monotonic()
    with pytest.raises(DeliveryError, match="no answer within"):
        post(f"{receiver}/drips", b"{}", {}, private=True, timeout=0.5)
    assert time.monotonic() - before < 5


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "169.254.169.254", "10.0.0.1"])
def test_no_private_address_is_connected_to(host: str) -> None:
    with pytest.raises(DeliveryError, match="private") as caught:
        post(f"https://{host}:1/", b"{}", {})
    assert caught.value.is_final


def test_nothing_is_sent_unencrypted_unless_allowed(receiver: str) -> None:
    with pytest.raises(DeliveryError, match="https"):
        post(receiver, b"{}", {})
    assert Receiver.received == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("0.0.0.0", False), ("100.64.0.1", False),
        ("192.168.1.1", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("fe80::1%eth0", False),
        ("fc00::1", False), ("::", False),
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public
