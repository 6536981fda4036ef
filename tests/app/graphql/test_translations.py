"""What becomes of texts, as GraphQL shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.settings import Settings
from tasks.contract.errors import Code
from tasks.contract.reply import Failure, Flag, SentenceResult, TextResult, TranslateReply
from tests.app.recorder import Recorder


def test_every_text_has_its_translation_in_order(translate: Callable[..., TestResponse]) -> None:
    texts = ["Un.", "", "Deux.\n\n  - Trois.", "Un."]
    answer = translate(texts=texts, source="fr")
    payload = answer.json["data"]["translate"]
    assert [t["text"] for t in payload["translations"]] == texts
    assert payload["model"] == "fr-en"
    assert payload["requestId"] == answer.headers["X-Request-Id"]


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
                        "flags": [flag.value for flag in Flag],
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
