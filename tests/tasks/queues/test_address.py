"""The broker's address from a variable or a file, and TLS: which brokers are trusted, and how errors are reported."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import requests
from celery import Celery
from kombu.exceptions import OperationalError

from launch.rabbitmq import PrivateRabbitMQ
from tasks.environment import SettingsError
from tasks.queues import address

SECRET = "amqp://tolk:s3cret@127.0.0.1/tolk"
TLS = "amqps://tolk:s3cret@rabbit/tolk"


def test_the_address_is_in_a_variable_or_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{SECRET}\n")
    assert address.address({"CELERY_BROKER_URL": SECRET}) == SECRET
    assert address.address({"CELERY_BROKER_URL": "", "CELERY_BROKER_URL_FILE": str(file)}) == SECRET
    assert address.address({}) == address.address({"CELERY_BROKER_URL": "", "CELERY_BROKER_URL_FILE": ""})


def test_an_address_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "url"
    for content, said in ((None, "No such file"), (b"\n", "is empty"), (b"\xff", "can't decode")):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(SettingsError, match=f"^CELERY_BROKER_URL_FILE: .*{file}.*{said}"):
            address.address({"CELERY_BROKER_URL_FILE": str(file)})
    with pytest.raises(SettingsError, match="not both") as refused:
        address.address({"CELERY_BROKER_URL": SECRET, "CELERY_BROKER_URL_FILE": str(file)})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "environ", "said"),
    [
        (SECRET, {"TOLK_BROKER_CA": "ca.pem"}, "for a broker whose address is amqps://"),
        (TLS, {"TOLK_BROKER_CA": "/nowhere.pem"}, "^TOLK_BROKER_CA, /nowhere.pem, cannot be used: .*No such file"),
        (TLS, {"TOLK_BROKER_CA": __file__}, "^TOLK_BROKER_CA, .* cannot be used"),
        (TLS, {"TOLK_BROKER_CERT": __file__}, "^TOLK_BROKER_CERT, .* cannot be used"),
        (TLS, {"TOLK_BROKER_KEY": __file__}, "without TOLK_BROKER_CERT"),
        (f"{TLS}?ssl=", {}, "no options"),
        (f"{TLS}?ssl_cert_reqs=none", {}, "no options"),
        (f"{TLS};{TLS}", {}, "one host"),
        (f"{SECRET};{TLS}", {}, "one host"),
        ("amqps:///tolk", {}, "one host"),
    ],
)
def test_what_would_not_be_safe_is_refused(url: str, environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        address.tls(url, environ)
    assert "s3cret" not in str(refused.value)


def test_a_certificate_has_to_be_valid_for_the_host() -> None:
    assert address.tls(SECRET, {}) is None
    for url in (TLS, TLS.upper()):
        options = address.tls(url, {})
        assert options is not None
        assert (options["cert_reqs"], options["server_hostname"]) == (ssl.CERT_REQUIRED, "rabbit")


class TLSRabbitMQ(PrivateRabbitMQ):
    """A RabbitMQ that accepts only TLS, as `localhost`, and only clients that have a certificate."""

    def __init__(self, directory: Path, log: IO[bytes], certificates: Path) -> None:
        super().__init__(directory, log)
        self._certificates = certificates

    def _configure(self, port: int) -> None:
        super()._configure(port)
        configuration = self.directory / "rabbitmq.conf"
        _plain, others = configuration.read_text().split("\n", 1)
        options = {
            "cacertfile": self._certificates / "ca.pem",
            "certfile": self._certificates / "localhost.pem",
            "keyfile": self._certificates / "localhost.key",
            "verify": "verify_peer",
            "fail_if_no_peer_cert": "true",
        }
        lines = ["listeners.tcp = none", f"listeners.ssl.local = 127.0.0.1:{port}"]
        lines += [f"ssl_options.{name} = {value}" for name, value in options.items()]
        configuration.write_text("\n".join([*lines, others]))

    @property
    def url(self) -> str:
        return super().url.replace("amqp://", "amqps://").replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two certificate authorities, `ca` and `other`, and two certificates by `ca`: `localhost` and `client`."""
    directory = tmp_path_factory.mktemp("certificates")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:false"]
    for name, more in {"ca": [], "other": [], "localhost": signed, "client": signed}.items():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", *more]
        command += ["-addext", f"subjectAltName=DNS:{name}"]
        subprocess.run(command, cwd=directory, capture_output=True, check=True)
    return directory


@pytest.fixture(scope="module")
def tls_broker(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbitMQ]:
    directory = tmp_path_factory.mktemp("tls")
    with (directory / "log").open("wb") as log, TLSRabbitMQ(directory, log, certificates) as running:
        yield running


def trusting(certificates: Path, ca: str, *, client: bool = True) -> dict[str, str]:
    """The variables of an environment that trusts an authority."""
    shown = {f"TOLK_BROKER_{kind}": f"{certificates}/client.{end}" for kind, end in (("CERT", "pem"), ("KEY", "key"))}
    return {"TOLK_BROKER_CA": f"{certificates}/{ca}.pem", **(shown if client else {})}


@pytest.mark.broker
def test_a_round_trip_over_tls(
    tls_broker: PrivateRabbitMQ,
    certificates: Path,
    tmp_path: Path,
    start_worker: Callable[..., Any],
    start_web: Callable[..., str],
    spawn: Callable[..., Any],
    eventually: Callable[..., None],
    free_port: Callable[[], int],
) -> None:
    file = tmp_path / "url"
    file.write_text(tls_broker.url)
    environ = {"CELERY_BROKER_URL_FILE": str(file), **trusting(certificates, "ca")}
    worker = start_worker("", app="echo", **environ)
    url = start_web("", **environ)
    texts = ["é" * 10_000] * 5  # longer than one TLS record
    query = (
        'mutation ($texts: [String!]!) { translate(input: {texts: $texts, target: "en"}) { translations { text } } }'
    )
    answer = requests.post(f"{url}/graphql", json={"query": query, "variables": {"texts": texts}}, timeout=30).json()
    assert [each["text"] for each in answer["data"]["translate"]["translations"]] == texts
    status = requests.post(f"{url}/graphql", json={"query": "{ status { workers { name } } }"}, timeout=30).json()
    (name,) = (each["name"] for each in status["data"]["status"]["workers"])

    port = free_port()
    flower = spawn("celery", "-A", "tasks", "flower", "--address=127.0.0.1", f"--port={port}", **environ)

    def seen() -> bool:
        try:
            return name in requests.get(f"http://127.0.0.1:{port}/workers", timeout=10).text
        except requests.ConnectionError:
            return False

    eventually(seen, 60)
    password = (tls_broker.directory / "password").read_text()
    assert not any(service.says(password) for service in (worker, flower))


@pytest.mark.broker
@pytest.mark.parametrize(
    ("ca", "host", "client", "said"),
    [
        ("ca", "localhost", True, None),
        ("other", "localhost", True, "certificate verify failed"),
        ("ca", "127.0.0.1", True, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ("ca", "localhost", False, "."),  # any message: which of several errors comes first depends on timing
    ],
)
def test_nobody_is_spoken_to_whose_certificate_does_not_fit(
    tls_broker: PrivateRabbitMQ, certificates: Path, ca: str, host: str, client: bool, said: str | None
) -> None:
    url = tls_broker.url.replace("localhost", host)
    options = address.tls(url, trusting(certificates, ca, client=client))
    with Celery(broker=url, set_as_current=False, broker_use_ssl=options).connection_for_write() as connection:
        if said is None:
            connection.ensure_connection(max_retries=0)
        else:
            with pytest.raises(OperationalError, match=said):
                connection.ensure_connection(max_retries=0)


@pytest.mark.broker
def test_the_worker_says_whom_it_does_not_trust(
    tls_broker: PrivateRabbitMQ, certificates: Path, spawn: Callable[..., Any], eventually: Callable[..., None]
) -> None:
    environ = trusting(certificates, "other")
    worker = spawn(
        "celery", "-A", "echo", "--workdir", "tests/tasks", "worker", CELERY_BROKER_URL=tls_broker.url, **environ
    )
    eventually(lambda: worker.says("certificate verify failed"))
    assert not worker.says((tls_broker.directory / "password").read_text())


@pytest.mark.parametrize(
    "url", ["amqp://u:secret@h:99999//", "amqps://u:secret@h:abc/", "amqp://u:secret@h:5672//;amqp://u:secret@h:-1//"]
)
def test_an_address_whose_port_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="a port from 0 to 65535") as refused:
        address.address({"CELERY_BROKER_URL": url})
    assert "secret" not in str(refused.value)
