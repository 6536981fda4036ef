"""What is on offer, as models.toml says at that moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.settings import Settings
from app.translation.translator import EchoTranslator
from tests.app.recorder import TWO_MODELS


def test_languages_come_from_the_registry(two_models: FlaskClient) -> None:
    answer = two_models.post("/graphql", json={"query": "{ languages { source target models via available } }"})
    assert answer.json["data"]["languages"] == [
        {"source": "fr", "target": "en", "models": ["fr-en", "many"], "via": [], "available": True},
        {"source": "de", "target": "en", "models": ["many"], "via": [], "available": True},
        {"source": "en", "target": "fi", "models": ["many"], "via": [], "available": True},
        {"source": "fr", "target": "fi", "models": ["fr-en", "many"], "via": ["en"], "available": True},
        {"source": "de", "target": "fi", "models": ["many", "many"], "via": ["en"], "available": True},
    ]


def test_models_and_languages_follow_the_file(
    tmp_path: Path, translate: Callable[..., TestResponse], eventually: Callable[..., None]
) -> None:
    path = tmp_path / "models.toml"
    path.write_text(TWO_MODELS)
    client = create_app(Settings(models=path), EchoTranslator()).test_client()

    def pairs() -> list[str]:
        answer = client.post("/graphql", json={"query": "{ models { source target } languages { source target } }"})
        found = answer.json["data"]
        return [f"{each['source']}-{each['target']}" for field in ("models", "languages") for each in found[field]]

    assert pairs() == ["fr-en", "fr-en", "de-en", "en-fi", "fr-en", "de-en", "en-fi", "fr-fi", "de-fi"]
    path.write_text(TWO_MODELS.partition("[models.many]")[0].replace('"fr"', '"sv"'))
    eventually(lambda: pairs() == ["sv-en", "sv-en"])
    assert translate(client, texts=["Moi."], source="fr").status_code == 404
    assert translate(client, texts=["Moi."], source="sv").status_code == 200
    path.write_text(TWO_MODELS.partition("[models.many]")[0].replace('"fr"', '"de"'))
    eventually(lambda: "[[&#34;de&#34;, &#34;en&#34;, true]]" in client.get("/").text)
