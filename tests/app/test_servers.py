from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from app.settings import REPOSITORY


@pytest.fixture(params=["gunicorn", "flask --app app run --port 0"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    environ = {
        **os.environ,
        "TOLK_TRANSLATOR": "echo",
        "PORT": "0",
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": f"sqlite:///{tmp_path}/tolk.sqlite",
    }
    command = [sys.executable, "-m", *request.param.split()]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        yield process
        process.kill()


@pytest.mark.timeout(60)
def test_a_server_serves_and_ends_when_it_is_told(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    log = []
    for line in server.stdout:
        log.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            url = found[0]
            break
    else:
        pytest.fail("".join(log))
    document = 'mutation { translate(input: {texts: ["Bonjour."], target: "en"}) { translations { text } } }'
    answer = requests.post(f"{url}/graphql", json={"query": document}, timeout=20)
    assert answer.json() == {"data": {"translate": {"translations": [{"text": "Bonjour."}]}}}
    assert requests.get(f"{url}/healthz", params={"secret": "word"}, timeout=20).status_code == 200
    server.terminate()
    log += server.stdout
    server.wait()
    assert "Settings(translator='echo'" in "".join(log)
    if "gunicorn" in server.args:  # Flask's own server logs what it is sent, and is not for anybody else's texts
        assert answer.headers["X-Request-Id"] in "".join(log)
        assert "secret" not in "".join(log)
        assert server.returncode == 0
