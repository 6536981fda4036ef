from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.settings import Settings
from app.translation.translator import EchoTranslator, Flight
from tasks.contract.errors import Code
from tasks.contract.reply import Failure, Flag, SentenceResult, TextResult, TranslateReply
from tasks.contract.request import RequestOptions, TranslateRequest
from tasks.registry import file as registry_file

TWO_MODELS = """
[models.fr-en]
reference = "fr-en"
pairs = [{ source = "fr", target = "en" }]
decoding = { beam = 3, length_penalty = 0.5 }

[models.many]
reference = "./many"
pairs = [{ source = "fr", target = "en" }, { source = "de", target = "en" }, { source = "en", target = "fi" }]
"""


class Recorder(EchoTranslator):
    """An echo that keeps what it was asked, and answers `reply` where there is one."""

    def __init__(self, reply: TranslateReply | None = None) -> None:
        super().__init__()
        self.reply = reply
        self.requests: list[tuple[TranslateRequest, str]] = []

    def begin(self, request_id: str, principal: str | None) -> AbstractContextManager[Flight]:
        self.request_id = request_id
        return super().begin(request_id, principal)

    def ask(self, request: TranslateRequest) -> TranslateReply:
        self.requests.append((request, self.request_id))
        return self.reply or super().ask(request)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def two_models(tmp_path: Path, recorder: Recorder) -> FlaskClient:
    path = tmp_path / "models.toml"
    path.write_text(TWO_MODELS)
    return create_app(Settings(models=path), recorder).test_client()


def test_the_committed_schema_is_the_one_served(tmp_path: Path) -> None:
    runner = create_app(Settings(), EchoTranslator()).test_cli_runner()
    copy = str(tmp_path / "schema.graphql")
    assert runner.invoke(args=["schema", "export", "--check"]).exit_code == 0
    missing = runner.invoke(args=["schema", "export", "--check", copy])
    assert missing.exit_code == 1
    assert "schema export" in missing.output
    assert runner.invoke(args=["schema", "export", copy]).exit_code == 0
    assert runner.invoke(args=["schema", "export", "--check", copy]).exit_code == 0


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, translate: Callable[..., TestResponse]
) -> None:
    monkeypatch.setattr(registry_file, "LOOK", 0.0)
    path = tmp_path / "models.toml"
    path.write_text(TWO_MODELS)
    client = create_app(Settings(models=path), EchoTranslator()).test_client()

    def pairs() -> list[str]:
        answer = client.post("/graphql", json={"query": "{ models { source target } languages { source target } }"})
        found = answer.json["data"]
        return [f"{each['source']}-{each['target']}" for field in ("models", "languages") for each in found[field]]

    assert pairs() == ["fr-en", "fr-en", "de-en", "en-fi", "fr-en", "de-en", "en-fi", "fr-fi", "de-fi"]
    path.write_text(TWO_MODELS.partition("[models.many]")[0].replace('"fr"', '"sv"'))
    assert pairs() == ["sv-en", "sv-en"]
    assert translate(client, texts=["Moi."], source="fr").status_code == 404
    assert translate(client, texts=["Moi."], source="sv").status_code == 200
    path.write_text(TWO_MODELS.partition("[models.many]")[0].replace('"fr"', '"de"'))
    assert "[[&#34;de&#34;, &#34;en&#34;, true]]" in client.get("/").text


def test_every_text_has_its_translation_in_order(translate: Callable[..., TestResponse]) -> None:
    texts = ["Un.", "", "Deux.\n\n  - Trois.", "Un."]
    answer = translate(texts=texts, source="fr")
    payload = answer.json["data"]["translate"]
    assert [t["text"] for t in payload["translations"]] == texts
    assert payload["model"] == "fr-en"
    assert payload["requestId"] == answer.headers["X-Request-Id"]


def test_the_translator_is_asked_what_the_caller_asked(
    two_models: FlaskClient, recorder: Recorder, translate: Callable[..., TestResponse]
) -> None:
    before = time.time()
    answer = translate(two_models, texts=["Un.", "Deux."], source="fr", model="fr-en", timeout=20)
    [(request, request_id)] = recorder.requests
    assert request_id == answer.headers["X-Request-Id"]
    assert before + 20 <= request.deadline <= time.time() + 20
    assert request == TranslateRequest(
        texts=("Un.", "Deux."),
        source="fr",
        target="en",
        model="fr-en",
        deadline=request.deadline,
        options=RequestOptions(beam=3, length_penalty=0.5),
    )


def test_the_timeout_is_ten_seconds_unless_said_otherwise(
    two_models: FlaskClient, recorder: Recorder, translate: Callable[..., TestResponse]
) -> None:
    before = time.time()
    for fields in ({}, {"timeout": None}):
        assert translate(two_models, texts=["Moi."], target="fi", **fields).status_code == 200
        assert before + 10 <= recorder.requests[-1][0].deadline <= time.time() + 10


@pytest.mark.parametrize(
    ("fields", "status", "code", "says"),
    [
        ({}, 400, "BAD_INPUT", "de (many), fr (fr-en)"),
        ({"target": "sv"}, 404, "UNKNOWN_MODEL", "No model translates to sv."),
        ({"source": "sv"}, 404, "UNKNOWN_MODEL", "Pairs: de-en, fr-en, en-fi."),
        ({"model": "en-sv"}, 404, "UNKNOWN_MODEL", "Models: fr-en, many."),
        ({"model": "fr-en", "target": "fi"}, 404, "UNKNOWN_MODEL", "Model 'fr-en' does not translate to fi."),
    ],
)
def test_a_request_that_leads_nowhere_says_where_it_could(
    two_models: FlaskClient,
    recorder: Recorder,
    translate: Callable[..., TestResponse],
    fields: dict[str, str],
    status: int,
    code: str,
    says: str,
) -> None:
    answer = translate(two_models, texts=["Moi."], **fields)
    assert answer.status_code == status
    [error] = answer.json["errors"]
    assert error["extensions"] == {"code": code, "requestId": answer.headers["X-Request-Id"]}
    assert says in error["message"]
    assert recorder.requests == []


def test_the_source_may_be_left_out_where_one_way_leads_to_the_target(
    two_models: FlaskClient, recorder: Recorder, translate: Callable[..., TestResponse]
) -> None:
    assert translate(two_models, texts=["Moi."], target="fi").json["data"]["translate"]["model"] == "many"
    assert recorder.requests[0][0].source == "en"


def test_no_texts_are_answered_with_none_and_ask_nobody(
    two_models: FlaskClient, recorder: Recorder, translate: Callable[..., TestResponse]
) -> None:
    answer = translate(two_models, texts=[], target="fi")
    assert answer.json["data"]["translate"]["translations"] == []
    assert recorder.requests == []


def test_a_texts_own_trouble_sits_on_that_text(translate: Callable[..., TestResponse]) -> None:
    reply = TranslateReply(
        model="fr-en",
        version="0123456789ab",
        results=(
            TextResult(text="One.", score=-0.25, flags=tuple(Flag)),
            TextResult(error=Failure(Code.BAD_INPUT, "A lone surrogate.")),
        ),
    )
    answer = translate(create_app(Settings(), Recorder(reply)).test_client(), texts=["Un.", "\ud800"])
    assert answer.status_code == 200
    assert answer.json == {
        "data": {
            "translate": {
                "requestId": answer.headers["X-Request-Id"],
                "model": "fr-en",
                "version": "0123456789ab",
                "translations": [
                    {
                        "text": "One.",
                        "score": -0.25,
                        "flags": ["REPETITION", "UNKNOWN_TOKENS", "SPLIT", "TRUNCATED"],
                        "error": None,
                    },
                    {
                        "text": None,
                        "score": None,
                        "flags": [],
                        "error": {"code": "BAD_INPUT", "message": "A lone surrogate."},
                    },
                ],
            }
        }
    }


def test_sentences_are_cut_out_of_text_and_translation() -> None:
    result = TextResult(
        text="😀 One. – Two?",
        score=-0.5,
        sentences=(
            SentenceResult((2, 5), (2, 6), -0.25),
            SentenceResult((8, 14), (9, 13), -0.75, (Flag.TRUNCATED,)),
        ),
    )
    client = create_app(Settings(), Recorder(TranslateReply(model="fr-en", results=(result,)))).test_client()
    document = (
        'mutation { translate(input: {target: "en", texts: ["😀 Un. – Deux ?"]})'
        " { translations { sentences { source text score flags } } } }"
    )
    answer = client.post("/graphql", json={"query": document})
    assert answer.json["data"]["translate"]["translations"][0]["sentences"] == [
        {"source": "Un.", "text": "One.", "score": -0.25, "flags": []},
        {"source": "Deux ?", "text": "Two?", "score": -0.75, "flags": ["TRUNCATED"]},
    ]


@pytest.mark.parametrize(
    "document",
    [
        "mutation($i: TranslateInput!) { a: translate(input: $i) { model } b: translate(input: $i) { model } }",
        "mutation($i: TranslateInput!) { ...F b: translate(input: $i) { model } }"
        " fragment F on Mutation { a: translate(input: $i) { model } }",
    ],
)
def test_a_request_holds_one_mutation(two_models: FlaskClient, recorder: Recorder, document: str) -> None:
    variables: dict[str, Any] = {"i": {"texts": ["Moi."], "target": "fi"}}
    answer = two_models.post("/graphql", json={"query": document, "variables": variables})
    assert answer.status_code == 400
    assert "one mutation" in answer.json["errors"][0]["message"]
    assert recorder.requests == []
    both = "mutation A($i: TranslateInput!) { __typename a: translate(input: $i) { model } } query B { __typename }"
    answer = two_models.post("/graphql", json={"query": both, "variables": variables, "operationName": "A"})
    assert answer.json["data"] == {"__typename": "Mutation", "a": {"model": "many"}}


@pytest.mark.parametrize("cancelled", [True, False])
def test_cancelling_names_the_request_in_lower_case(recorder: Recorder, cancelled: bool) -> None:
    named: list[tuple[str, str | None]] = []

    def cancel(request_id: str, principal: str | None) -> bool:
        named.append((request_id, principal))
        return cancelled

    recorder.cancel = cancel
    document = 'mutation { cancelTranslation(requestId: "0D0A4B3C-6DFD-4C6C-9A0A-3D3D4B0F8B5E") { cancelled } }'
    answer = create_app(Settings(), recorder).test_client().post("/graphql", json={"query": document})
    assert answer.json == {"data": {"cancelTranslation": {"cancelled": cancelled}}}
    assert named == [("0d0a4b3c-6dfd-4c6c-9a0a-3d3d4b0f8b5e", None)]
