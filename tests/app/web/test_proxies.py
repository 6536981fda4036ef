"""What a proxy says of a request counts if it is trusted, and only then."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
import requests

from app import create_app
from app.settings import Settings
from app.translation.translator import EchoTranslator
from app.web.proxies import TrustedProxies

PROXIES = [ip_network("10.0.0.0/8"), ip_network("127.0.0.1")]


def seen(peer: str, everybody: bool = False, script_name: str = "", **headers: str) -> tuple[str, str]:
    """The address and the prefix that the application sees."""
    found = {}
    environ = {"REMOTE_ADDR": peer, "SCRIPT_NAME": script_name, **{f"HTTP_{name}": headers[name] for name in headers}}

    def application(environ: dict[str, Any], _: object) -> list[bytes]:
        found.update(environ)
        return []

    assert TrustedProxies(application, PROXIES, everybody)(environ, None) == []
    return found["REMOTE_ADDR"], found["SCRIPT_NAME"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),  # the client says that it is 1.1.1.1
        ("127.0.0.1", "1.1.1.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),  # a proxy before the proxy
        ("127.0.0.1", "10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9, _hidden, 10.1.2.3", "10.1.2.3"),
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),  # not trusted
        ("", "203.0.113.9", "203.0.113.9"),  # by a socket of this machine
    ],
)
def test_the_client_is_the_last_one_that_a_trusted_proxy_has_seen(peer: str, forwarded: str, client: str) -> None:
    assert seen(peer, X_FORWARDED_FOR=forwarded)[0] == client


@pytest.mark.parametrize(
    ("peer", "prefix", "path"),
    [
        ("127.0.0.1", "/tolk", "/tolk"),
        ("127.0.0.1", "/a/tolk/", "/a/tolk"),
        ("127.0.0.1", "", ""),
        ("127.0.0.1", "/", ""),
        ("127.0.0.1", "//evil.example", ""),
        ("127.0.0.1", "https://evil.example", ""),
        ("127.0.0.1", '/"><script>', ""),
        ("198.51.100.7", "/tolk", ""),
    ],
)
def test_the_path_is_what_a_trusted_proxy_says(peer: str, prefix: str, path: str) -> None:
    assert seen(peer, X_FORWARDED_PREFIX=prefix)[1] == path


def test_everybody_may_be_trusted() -> None:
    assert seen("198.51.100.7", everybody=True, X_FORWARDED_FOR="203.0.113.9")[0] == "203.0.113.9"


@pytest.mark.parametrize("trusted", [True, False])
def test_behind_a_trusted_proxy_the_log_has_the_client_and_pages_their_path(
    start_gunicorn: Callable[..., Any], eventually: Callable[..., None], trusted: bool
) -> None:
    arguments = {"GUNICORN_CMD_ARGS": "--forwarded-allow-ips=127.0.0.1"} if trusted else {}
    web = start_gunicorn(**arguments)
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Prefix": "/tolk", "X-Forwarded-Proto": "https"}
    page = requests.get(web.url, headers=forwarded, timeout=20)
    assert ('"/tolk/static/page.js' in page.text) == trusted
    assert ('data-endpoint="/tolk/graphql"' in page.text) == trusted
    assert ("Strict-Transport-Security" in page.headers) == trusted
    eventually(lambda: web.service.says("client=203.0.113.9") == trusted and web.service.says("client="))


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "x-forwarded-host", "X-Forwarded-Proto"]
)
@pytest.mark.parametrize("value", ["127.0.0.1", "for=127.0.0.1", ""])
def test_what_came_through_a_proxy_is_not_local(header: str, value: str) -> None:
    client = create_app(Settings(), EchoTranslator()).test_client()
    body = {"query": "{ languages { source } }"}
    assert client.post("/graphql", json=body).status_code == 200
    answer = client.post("/graphql", json=body, headers={header: value})
    assert answer.status_code == 401
    assert "An API key is needed" in answer.json["errors"][0]["message"]


def test_below_a_path_that_the_environment_names_everything_is_found(
    spawn: Callable[..., Any], await_web: Callable[..., None], free_port: Callable[[], int]
) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}/tolk"
    await_web(url, spawn("gunicorn", TOLK_TRANSLATOR="echo", PORT=port, SCRIPT_NAME="/tolk"))
    page = requests.get(f"{url}/", timeout=20)
    assert page.status_code == 200
    assert 'data-endpoint="/tolk/graphql"' in page.text
    body = {"query": "{ languages { source } }"}
    assert requests.post(f"{url}/graphql", json=body, timeout=20).status_code == 200
    assert requests.get(f"{url}/static/page.js", timeout=20).status_code == 200
    assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=20).status_code >= 400
