from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from werkzeug.test import TestResponse

from app import create_app
from app.settings import REQUESTS, Settings
from app.translation.translator import EchoTranslator
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest


class Patient(EchoTranslator):
    """Translates when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.may = threading.Event()

    def ask(self, request: TranslateRequest) -> TranslateReply:
        self.waiting += 1
        self.may.wait(60)
        return super().ask(request)


def test_however_many_wait_others_are_refused_and_health_is_told(
    mutation: str, eventually: Callable[..., None]
) -> None:
    translator = Patient()
    app = create_app(Settings(), translator)
    query = {"query": mutation, "variables": {"input": {"texts": ["un"], "target": "en", "timeout": 60}}}

    def ask(path: str) -> TestResponse:
        return app.test_client().post(path, json=query)

    with ThreadPoolExecutor(REQUESTS) as threads:
        waiting = [threads.submit(ask, "/graphql") for _ in range(REQUESTS)]
        try:
            eventually(lambda: translator.waiting == REQUESTS)
            refused = [ask(path) for path in ("/graphql", "/api/graphql")]
            assert app.test_client().get("/healthz").status_code == 200
        finally:
            translator.may.set()
        assert {each.result().status_code for each in waiting} == {200}
    assert [answer.status_code for answer in refused] == [503, 503]
    assert [answer.json["errors"][0]["extensions"]["code"] for answer in refused] == ["OVERLOADED"] * 2
    assert [answer.headers["Retry-After"] for answer in refused] == ["1", "1"]
    assert ask("/graphql").status_code == 200
