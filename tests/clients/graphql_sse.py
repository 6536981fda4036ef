"""The client graphql-sse against a web tier: `make test-clients` runs it, which needs Node and fetches npm packages."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.jobs.conftest import Api
from tests.conftest import Service

HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """Installs what package-lock.json lists."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.fail(f"There is no {program}: install Debian's packages nodejs and npm.")
    done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"npm cannot install tests/clients/package-lock.json:\n{done.stderr}")


@pytest.fixture(scope="module")
def web(spawn: Callable[..., Service]) -> Service:
    return spawn("gunicorn", "--bind", "127.0.0.1:0", TOLK_TRANSLATOR="echo")


@pytest.fixture(scope="module")
def api(web: Service, eventually: Callable[..., None]) -> Api:
    start = "Listening at: "
    eventually(lambda: web.says(start) or web.process.poll() is not None)
    [line] = [line for line in web.log.read_text().splitlines() if start in line]
    return Api(line.partition(start)[2].partition(" ")[0])


@pytest.fixture
def listen(api: Api) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a client that listens to a job."""
    clients: list[subprocess.Popen[str]] = []

    def start(job_id: str) -> subprocess.Popen[str]:
        command = ["node", "listen.mjs", api.url, job_id]
        clients.append(subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True))
        return clients[-1]

    yield start
    for client in clients:
        client.kill()
        client.communicate()


def heard(client: subprocess.Popen[str]) -> Any:
    """The next line, as JSON; `complete` and the empty end of all as they are."""
    assert client.stdout is not None
    line = client.stdout.readline().strip()
    return json.loads(line) if line.startswith("{") else line


def state(status: str) -> dict[str, Any]:
    return {"data": {"jobUpdated": {"status": status}}}


def test_a_job_is_followed_to_its_end(api: Api, listen: Callable[..., subprocess.Popen[str]]) -> None:
    job = api.submit("Bonjour.")["id"]
    client = listen(job)
    assert heard(client) == state("QUEUED")
    api.change("cancelJob", job)
    assert [heard(client), heard(client), client.wait(20)] == [state("CANCELLED"), "complete", 0]


def test_an_unknown_job_is_an_error(listen: Callable[..., subprocess.Popen[str]]) -> None:
    client = listen("00000000-0000-0000-0000-000000000000")
    [error] = heard(client)["errors"]
    assert error["extensions"]["code"] == "BAD_INPUT"
    assert [heard(client), client.wait(20)] == ["complete", 0]


def test_a_client_moves_on_to_another_process(
    api: Api, web: Service, listen: Callable[..., subprocess.Popen[str]]
) -> None:
    job = api.submit("Bonjour.")["id"]
    clients = [listen(job) for _ in range(4)]
    assert [heard(client) for client in clients] == [state("QUEUED")] * 4
    web.process.send_signal(signal.SIGHUP)  # new processes, and the old ones end
    assert [heard(client) for client in clients] == [state("QUEUED")] * 4  # told again by a new one
    api.change("cancelJob", job)
    for client in clients:
        assert [heard(client), heard(client), client.wait(20)] == [state("CANCELLED"), "complete", 0]
