"""Texts are in no log, whatever becomes of them, unless somebody wants them there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from launch.rabbitmq import PrivateRabbitMQ

pytestmark = pytest.mark.broker

SECRET = "Gezeitenmarke"
MUTATION = "mutation($input: TranslateInput!) { translate(input: $input) { requestId translations { text } } }"


def ask(web: Any, *texts: str, **fields: Any) -> requests.Response:
    variables = {"input": {"texts": texts, "target": "en", **fields}}
    return requests.post(f"{web.url}/graphql", json={"query": MUTATION, "variables": variables}, timeout=20)


def send(web: Any, path: str = "/graphql", **sent: Any) -> requests.Response:
    return requests.post(web.url + path, timeout=20, **sent)


def test_no_text_is_in_any_log(
    broker: PrivateRabbitMQ,
    start_worker: Callable[..., Any],
    start_gunicorn: Callable[..., Any],
    eventually: Callable[..., None],
) -> None:
    worker = start_worker(broker.url, app="echo")
    web = start_gunicorn(TOLK_TRANSLATOR="celery", CELERY_BROKER_URL=broker.url)
    assert SECRET in ask(web, SECRET).text
    for texts in ((SECRET * 2_000,), (SECRET,) * 200, ("#fail", SECRET), ("#bad", SECRET), (f"#sleep {SECRET}",)):
        ask(web, *texts)
    for fields in ({"target": SECRET}, {"model": SECRET}, {"timeout": SECRET}, {"timeout": 1e-9}, {SECRET: 1}):
        ask(web, SECRET, **fields)
    for document in (f'{{ languages(a: "{SECRET}") }}', SECRET, f'"{SECRET}', f"{{ {SECRET} }}", f"# {SECRET}"):
        send(web, json={"query": document, "variables": {SECRET: SECRET}})
        requests.get(f"{web.url}/graphql", params={"query": document}, timeout=20)
    for path in ("/graphql", "/api/graphql"):
        send(web, path, data=f'{{"query": "{SECRET}')
        send(web, path, data={"query": "{ translate(sentence: $s) }", "variables": json.dumps({"s": SECRET})})
        send(web, path, json={"query": f'{{ translate(sentence: "{SECRET}") {{ translatedString }} }}'})
        send(web, path, json=[SECRET], headers={"Origin": f"https://{SECRET}.example", "Authorization": SECRET})
    with web.connect() as client:  # a body that goes on where the next request should begin
        client.sendall(web.head(2) + f"{{}}{SECRET} {SECRET}\r\n\r\n".encode())
        while client.recv(65536):
            pass
    with web.connect() as client:  # one that hangs up
        body = json.dumps({"query": MUTATION, "variables": {"input": {"texts": ["#sleep 30", SECRET], "target": "en"}}})
        client.sendall(web.head(len(body)) + body.encode())
    assert SECRET in ask(web, SECRET).text
    ask(web, "#die", SECRET, timeout=2)
    eventually(lambda: worker.process.poll() is not None)
    assert worker.says("translation failed with RuntimeError")
    assert not web.service.says(SECRET)
    assert not worker.says(SECRET)


def test_they_are_where_somebody_wants_them(start_gunicorn: Callable[..., Any]) -> None:
    web = start_gunicorn(TOLK_LOG_TEXTS="on")
    request_id = ask(web, SECRET, "a\nb\x1b[31m\u202e\ud800").json()["data"]["translate"]["requestId"]
    for what in ("asks", "gets"):
        assert web.service.says(rf"Request {request_id} {what}: ['{SECRET}', 'a\nb\x1b[31m\u202e\ud800']")
