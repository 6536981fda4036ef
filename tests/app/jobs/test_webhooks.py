from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from app.database.tables import job as table
from app.database.tables import job_callback
from app.database.transactions import Database
from app.jobs import store, sweep, webhooks
from app.jobs.delivery import TIMEOUT, DeliveryError, is_public, post, secret_of, spelled
from app.jobs.job import Status
from app.jobs.webhooks import AT_ONCE, DELAYS, Callback, Webhooks
from tests.app.jobs.conftest import create_job
from tests.app.jobs.receiver import Receiver, is_signed

SECRET = "a secret of the whole service"


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


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().running() as running:
        yield running


def due_now(database: Database) -> None:
    database.run(lambda connection: connection.execute(update(job_callback).values(next_attempt=time.time())))


def test_a_receiver_is_told_once_and_can_check_who_tells(database: Database, receiver: Receiver) -> None:
    number = ended(database, f"{receiver.url}/told?x=1")
    hooks = Webhooks(database, SECRET, private=True)
    assert (hooks.deliver(), hooks.deliver()) == (1, 0)
    [(path, headers, body)] = receiver.received
    assert path == "/told?x=1"
    assert is_signed(headers, body, spelled(secret_of(SECRET, "7")))
    assert not is_signed(headers, body + b" ", spelled(secret_of(SECRET, "7")))
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
def test_what_is_not_accepted_is_tried_again(database: Database, receiver: Receiver, path: str, error: str) -> None:
    number = ended(database, receiver.url + path)
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
    assert [each for each, _, _ in receiver.received] == [path, path]  # and never the redirect's target
    first, second = (headers["webhook-id"] for _, headers, _ in receiver.received)
    assert first == second


def test_a_receiver_that_hangs_delays_nobody_else(
    database: Database, receiver: Receiver, eventually: Callable[..., None]
) -> None:
    ended(database, f"{receiver.url}/hangs")
    hooks = Webhooks(database, SECRET, private=True)
    hooks.start()
    eventually(lambda: receiver.received)
    number = ended(database, f"{receiver.url}/told")
    eventually(lambda: callback(database, number).delivered, TIMEOUT / 2)
    receiver.released.set()
    hooks.close()
    assert [path for path, _, _ in receiver.received] == ["/hangs", "/told"]


def test_attempts_are_bounded(database: Database, receiver: Receiver) -> None:
    number = ended(database, f"{receiver.url}/fails")
    hooks = Webhooks(database, SECRET, private=True)
    for _ in range(len(DELAYS) + 1):
        due_now(database)
        hooks.deliver()
    state = callback(database, number)
    assert (state.attempts, state.next_attempt, state.delivered) == (len(DELAYS) + 1, None, None)


def test_a_receiver_that_is_gone_is_not_asked_again(database: Database, receiver: Receiver) -> None:
    number = ended(database, f"{receiver.url}/gone")
    Webhooks(database, SECRET, private=True).deliver()
    assert callback(database, number).next_attempt is None


def test_a_job_that_runs_again_tells_nothing(database: Database, receiver: Receiver) -> None:
    number = ended(database, receiver.url)
    database.run(lambda connection: store.change(connection, number, status=Status.QUEUED))
    assert Webhooks(database, SECRET, private=True).deliver() == 0
    assert receiver.received == []


def test_a_results_worker_without_the_secret_says_so(database: Database, receiver: Receiver) -> None:
    number = ended(database, receiver.url)
    Webhooks(database, None, private=True).deliver()
    state = callback(database, number)
    assert "TOLK_WEBHOOK_SECRET" in (state.error or "")
    assert state.next_attempt is not None  # the operator may still set it
    assert receiver.received == []


def test_two_results_workers_tell_once_and_the_first_that_was_due_first(database: Database, receiver: Receiver) -> None:
    for number in range(2 * AT_ONCE):
        due = ended(database, f"{receiver.url}/{number}")
        values = {"next_attempt": 1_000.0 - number}
        database.run(
            lambda connection, due=due, values=values: connection.execute(
                update(job_callback).where(job_callback.c.job_id == due).values(values)
            )
        )
    workers = [Webhooks(database, SECRET, private=True) for _ in range(2)]
    workers[0].deliver()
    assert {path for path, _, _ in receiver.received} == {f"/{number}" for number in range(AT_ONCE, 2 * AT_ONCE)}
    for number in range(4):
        ended(database, f"{receiver.url}/more-{number}")
    with ThreadPoolExecutor() as threads:
        while sum(threads.map(Webhooks.deliver, workers)):
            pass
    told = [path for path, _, _ in receiver.received]
    assert len(set(told)) == len(told) == 2 * AT_ONCE + 4


def test_a_purged_job_tells_nothing(database: Database, receiver: Receiver) -> None:
    number = ended(database, receiver.url)
    database.run(lambda connection: store.change(connection, number, expires=time.time()))
    while database.run(sweep.purge):
        pass
    assert Webhooks(database, SECRET, private=True).deliver() == 0
    assert database.run(lambda connection: webhooks.find(connection, number)) is None


@pytest.mark.parametrize("path", ["/hangs", "/fails"])
def test_a_job_may_be_deleted_while_it_is_told(
    database: Database, receiver: Receiver, path: str, eventually: Callable[..., None]
) -> None:
    number = ended(database, receiver.url + path)
    other = ended(database, f"{receiver.url}/told")
    hooks = Webhooks(database, SECRET, private=True, timeout=5)
    with ThreadPoolExecutor() as threads:
        delivered = threads.submit(hooks.deliver)
        eventually(lambda: len(receiver.received) == 2)
        database.run(lambda connection: connection.execute(delete(table).where(table.c.id == number)))
        receiver.released.set()
        assert delivered.result() == 2
    assert callback(database, other).delivered is not None
    assert hooks.deliver() == 0


def test_each_key_has_a_secret_of_its_own() -> None:
    assert secret_of(SECRET, "1") != secret_of(SECRET, "2")
    assert spelled(secret_of(SECRET, "1")).startswith("whsec_")


def test_an_answer_that_never_ends_is_given_up(receiver: Receiver) -> None:
    before = time.monotonic()
    with pytest.raises(DeliveryError, match="no answer within"):
        post(f"{receiver.url}/drips", b"{}", {}, private=True, timeout=0.5)
    assert time.monotonic() - before < 5


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "169.254.169.254", "10.0.0.1"])
def test_no_private_address_is_connected_to(host: str) -> None:
    with pytest.raises(DeliveryError, match="private") as caught:
        post(f"https://{host}:1/", b"{}", {})
    assert caught.value.is_final


def test_nothing_is_sent_unencrypted_unless_allowed(receiver: Receiver) -> None:
    with pytest.raises(DeliveryError, match="https"):
        post(receiver.url, b"{}", {})
    assert receiver.received == []


def addresses(port: int, *hosts: str) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]


def test_what_was_looked_at_is_what_is_connected_to() -> None:
    with Receiver("127.0.0.2").running() as first, Receiver().running() as later:
        answers = [addresses(first.server_port, "127.0.0.2"), addresses(later.server_port, "127.0.0.1")]
        post("http://name.example/", b"{}", {}, private=True, resolve=lambda *_, **__: answers.pop(0))
        assert len(answers) == 1
        assert later.received == []
        [(_, headers, _)] = first.received
        assert headers["host"] == "name.example"


def test_a_name_with_private_addresses_alone_is_not_asked_for_again() -> None:
    answers = [addresses(1, "10.0.0.1", "127.0.0.1"), addresses(1, "8.8.8.8")]
    with pytest.raises(DeliveryError, match="private"):
        post("https://name.example/", b"{}", {}, resolve=lambda *_, **__: answers.pop(0))
    assert len(answers) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost` that nobody but itself has signed, beside its key."""
    path = tmp_path_factory.mktemp("certificate") / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(path.with_suffix(".key")), "-out", str(path)]
    subprocess.run(command, capture_output=True, check=True)
    return path


def test_an_encrypted_message_goes_to_whoever_has_a_good_certificate(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with Receiver(tls=tls).running() as receiver:
        send = partial(post, body=b"{}", headers={}, private=True)
        with pytest.raises(DeliveryError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            send(receiver.url)
        assert not caught.value.is_final  # certificates expire, and are renewed
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with pytest.raises(DeliveryError, match="IP address mismatch"):
            send(receiver.url.replace("localhost", "127.0.0.1"))
        assert receiver.received == []
        send(f"{receiver.url}/told")
        assert [path for path, _, _ in receiver.received] == ["/told"]


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
