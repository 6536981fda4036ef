"""Flower as `make run` starts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from launch.flower import is_local


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("[::1]", True),
        ("::1", True),
        ("rebound.example", False),
        ("localhost.rebound.example", False),
        ("127.0.0.1.rebound.example", False),
        ("192.0.2.1", False),
        ("[2001:db8::1]", False),
        ("", False),
    ],
)
def test_which_names_are_the_machines_own(host: str, local: bool) -> None:
    assert is_local(host) is local


def test_a_page_whose_name_leads_to_this_machine_sees_nothing(
    spawn: Callable[..., Any], free_port: Callable[[], int], eventually: Callable[..., None]
) -> None:
    port = free_port()
    broker = f"amqp://guest:guest@127.0.0.1:{free_port()}//"  # there is none
    arguments = ("-A", "tasks", "flower", "--address=127.0.0.1", f"--port={port}")
    flower = spawn("launch.flower", *arguments, CELERY_BROKER_URL=broker)

    def status(path: str, host: str) -> int:
        return requests.get(f"http://127.0.0.1:{port}{path}", headers={"Host": host}, timeout=20).status_code

    def answers() -> bool:
        try:
            return status("/healthcheck", f"127.0.0.1:{port}") == 200
        except requests.ConnectionError:
            assert flower.process.poll() is None
            return False

    eventually(answers, 60)
    for path in ("/", "/tasks", "/metrics", "/healthcheck", "/static/css/flower.css", "/api/workers"):
        assert [status(path, host) for host in (f"rebound.example:{port}", "192.0.2.1")] == [403, 403]
    assert status("/tasks", f"localhost:{port}") == 200
