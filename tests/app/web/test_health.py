from __future__ import annotations

from app import create_app
from app.settings import Settings
from app.translation.translator import EchoTranslator


def test_the_process_lives_whether_or_not_it_is_ready() -> None:
    translator = EchoTranslator()
    client = create_app(Settings(), translator).test_client()
    assert client.get("/readyz").json == {"status": "ready"}
    translator.close()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").json == {"status": "alive"}
