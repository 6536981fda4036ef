"""The files of Compose: their programs accept them, and they keep the restrictions of docker-compose.yml."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest
import requests
from kombu import Connection, Queue

from app.settings import Settings
from launch.rabbitmq import MONITOR, PrivateRabbitMQ
from tasks.worker.start import GRACE
from tests.compose.metrics import METRICS
from tests.compose.prometheus import jobs
from tests.compose.rabbitmq import ComposeRabbitMQ
from tests.conftest import REPOSITORY, Spawn

COMPOSE = REPOSITORY / "compose"
DOCKERFILES = sorted(COMPOSE.glob("*/Dockerfile"))
QUEUE = "tolk.translate.fr-en.interactive"


def run(program: str, *arguments: str) -> str:
    """Runs a program of the environment and returns its output. Fails the test if the program fails."""
    command = [Path(sys.executable).with_name(program), *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def services(*files: str) -> dict[str, Any]:
    """The files as Compose reads them."""
    return configuration(*files)["services"]


def configuration(*files: str) -> dict[str, Any]:
    """Hides a .env file from Compose."""
    options = ["--env-file", os.devnull, *(f"--file={file}" for file in files)]
    found: dict[str, Any] = json.loads(run("docker-compose", *options, "--profile=*", "config", "--format=json"))
    return found


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    return services("docker-compose.yml")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of secrets after launch.secrets has run twice."""
    made = tmp_path_factory.mktemp("secrets")
    for _ in range(2):
        subprocess.run([sys.executable, "-m", "launch.secrets", made], cwd=REPOSITORY, check=True)
    return made


@pytest.fixture(scope="module")
def rabbitmq(
    new_broker: Callable[[], PrivateRabbitMQ], directory: Path, free_port: Callable[[], int]
) -> Iterator[ComposeRabbitMQ]:
    plain = new_broker()
    broker = ComposeRabbitMQ(plain.directory, plain.log)
    broker.secrets, broker.management, broker.prometheus = directory, free_port(), free_port()
    with broker:
        yield broker


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing_in_a_dockerfile(path: Path) -> None:
    run("hadolint", str(path))


def test_every_service_has_few_rights_and_limits(stack: dict[str, Any]) -> None:
    for name, service in stack.items():
        assert service["init"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"].keys() >= {"memory", "pids"}, name
        assert service.get("read_only") or name == "tests", name
        assert "privileged" not in service, name


def test_everything_is_published_on_loopback_unless_the_web_tier_is_told_otherwise(
    stack: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLK_PUBLISH", "0.0.0.0:80")
    for name, service in services("docker-compose.yml").items():
        for before, port in zip(stack[name].get("ports", []), service.get("ports", []), strict=True):
            assert before["host_ip"] == "127.0.0.1"
            assert port["host_ip"] == ("0.0.0.0" if name == "web" else "127.0.0.1")


def test_nothing_leads_out_of_where_the_broker_and_the_database_are() -> None:
    networks = configuration("docker-compose.yml")["networks"]
    assert all(networks[name]["internal"] for name in ("broker", "database", "metrics"))


def test_whoever_is_stopped_has_time_to_finish(stack: dict[str, Any]) -> None:
    assert stack["web"]["stop_grace_period"] == f"1m{Settings().max_timeout + 15 - 60}s"
    assert int(stack["worker"]["stop_grace_period"].removesuffix("s")) >= GRACE + 15


def test_a_service_sees_no_secrets_but_its_own(stack: dict[str, Any]) -> None:
    for name, service in stack.items():
        seen = {each["source"] for each in service.get("volumes", []) if "secrets" in each["source"]}
        of = {"secrets": seen, "migrate": {"web-secrets"}, "jobs": {"web-secrets"}, "prometheus": set(), "tests": set()}
        assert seen == of.get(name, {f"{name}-secrets"}), name


def test_callbacks_are_signed_by_one_secret_and_have_a_way_out(stack: dict[str, Any], directory: Path) -> None:
    file = "/run/secrets/webhook-secret"
    assert {stack[name]["environment"]["TOLK_WEBHOOK_SECRET_FILE"] for name in ("web", "jobs")} == {file}
    mounted = {each["source"] for name in ("web", "jobs") for each in stack[name]["volumes"] if each["target"] in file}
    assert mounted == {"web-secrets"}
    assert Settings.from_env({"TOLK_WEBHOOK_SECRET_FILE": str(directory / "web" / "webhook-secret")}).webhook_secret
    assert "outside" in stack["jobs"]["networks"]


def test_a_pool_sees_all_gpus() -> None:
    worker = services("docker-compose.yml", "docker-compose.gpu.yml")["worker"]
    [device] = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", -1)
    assert worker["command"][:7] == ["celery", "--quiet", "-A", "tasks", "pool", "--gpus", "all"]
    assert worker["build"]["args"]["COMPUTE"].startswith("cu")
    assert worker["image"] != services("docker-compose.yml")["worker"]["image"]


def test_secrets_are_made_once_and_are_nobody_elses(directory: Path, tmp_path: Path) -> None:
    kept = {path.name: path.read_text() for path in (directory / "kept").iterdir()}
    assert len(set(kept.values())) == len(kept) == 6
    assert all(len(secret) >= 43 for secret in kept.values())  # 256 bits
    assert kept["broker"] in (directory / "web" / "broker-url").read_text()
    assert kept["database"] == (directory / "postgres" / "password").read_text()
    for path in directory.glob("*/*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o444 if path.name == "definitions.json" else 0o400), path
    definitions = (directory / "rabbitmq" / "definitions.json").read_text()
    assert not [secret for secret in kept.values() if secret in definitions]
    subprocess.run([sys.executable, "-m", "launch.secrets", tmp_path], cwd=REPOSITORY, check=True)
    assert not set(kept.values()) & {path.read_text() for path in (tmp_path / "kept").iterdir()}


@pytest.mark.broker
def test_rabbitmq_lets_in_whom_the_secrets_name(rabbitmq: ComposeRabbitMQ, directory: Path) -> None:
    url = rabbitmq.located((directory / "worker" / "broker-url").read_text())
    with Connection(url) as connection:
        assert Queue(QUEUE, queue_arguments={"x-expires": 60_000}).bind(connection.default_channel).declare() == QUEUE
        with pytest.raises(amqp.AccessRefused):
            Queue("foreign").bind(connection.default_channel).declare()
    guest = f"amqp://guest:guest@{url.partition('@')[2]}"
    with pytest.raises(amqp.AccessRefused), Connection(guest) as connection:
        connection.connect()


@pytest.mark.broker
def test_the_monitor_sees_queues_and_no_message(rabbitmq: ComposeRabbitMQ, directory: Path) -> None:
    api = rabbitmq.located((directory / "flower" / "broker-api").read_text())
    assert requests.get(f"{api}queues/tolk", timeout=10).status_code == 200
    wanted = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    refused = requests.post(f"{api}queues/tolk/{QUEUE}/get", json=wanted, timeout=10)
    assert refused.status_code in (400, 401)
    assert requests.get(api.replace(MONITOR, "tolk", 1) + "queues/tolk", timeout=10).status_code == 401


@pytest.mark.broker
def test_rabbitmq_tells_prometheus_what_the_dashboard_asks_for(
    rabbitmq: ComposeRabbitMQ, directory: Path, eventually: Callable[..., None]
) -> None:
    job = jobs()["rabbitmq"]
    address = f"http://127.0.0.1:{rabbitmq.prometheus}{job['metrics_path']}"
    url = rabbitmq.located((directory / "worker" / "broker-url").read_text())
    with Connection(url) as connection:
        Queue(QUEUE, queue_arguments={"x-expires": 60_000}).bind(connection.default_channel).declare()
        for name, (_, *labels) in METRICS["rabbitmq"].items():
            series = rf'^{name}{{.*queue="{QUEUE}"}} ' if labels else f"^{name} "
            eventually(lambda s=series: re.search(s, requests.get(address, job["params"]).text, re.MULTILINE))


@pytest.mark.broker
def test_flower_wants_a_login(
    rabbitmq: ComposeRabbitMQ,
    directory: Path,
    spawn: Spawn,
    eventually: Callable[..., None],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    for path in (directory / "flower").iterdir():
        secret = path.read_text()
        (tmp_path / path.name).write_text(rabbitmq.located(secret) if "@" in secret else secret)
    config = tmp_path / "flowerconfig.py"
    config.write_text((COMPOSE / "flower" / "flowerconfig.py").read_text().replace("/run/secrets", str(tmp_path)))
    port = free_port()
    command = ("celery", "-A", "tasks", "flower", f"--conf={config}", "--address=127.0.0.1", f"--port={port}")
    flower = spawn(*command, CELERY_BROKER_URL_FILE=str(tmp_path / "broker-url"))

    def get(page: str, **how: Any) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{port}/{page}", timeout=10, **how)

    def answers() -> bool:
        try:
            return get("healthcheck").ok
        except requests.ConnectionError:
            return flower.process.poll() is not None

    eventually(answers)
    login = tuple((tmp_path / "login").read_text().split(":"))
    assert get("workers").status_code == 401
    assert get("workers", auth=("tolk", "tolk")).status_code == 401
    assert get("workers", auth=login).status_code == 200
    columns = re.findall(r'data-column="(\w+)"', get("tasks", auth=login).text)
    assert columns == ["state", "args", "received", "runtime", "worker", "uuid"]
