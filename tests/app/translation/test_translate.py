"""What the models are asked for a request, and what it is refused for."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tasks.contract.request import RequestOptions, TranslateRequest
from tests.app.recorder import Recorder


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
        caller=request.caller,
    )
    assert request.caller  # by its address, without a key


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


@pytest.mark.parametrize(("nbest", "beam"), [(1, 3), (3, 3), (4, 4)])
def test_alternatives_are_asked_of_the_model_with_a_beam_that_has_room_for_them(
    two_models: FlaskClient, recorder: Recorder, mutation: str, nbest: int, beam: int
) -> None:
    variables = {"input": {"texts": ["Moi."], "source": "fr", "target": "en", "nbest": nbest}}
    query = mutation.replace("text score flags", "text alternatives { text score }")
    answer = two_models.post("/graphql", json={"query": query, "variables": variables}).json["data"]["translate"]
    assert answer["translations"][0]["alternatives"] == [{"text": "Moi.", "score": 0.0}] * (nbest - 1)
    [(request, _)] = recorder.requests
    assert request.options == RequestOptions(beam=beam, nbest=nbest, length_penalty=0.5)
    assert TranslateRequest.decode(request.encode()) == request


def test_the_last_of_two_models_makes_the_alternatives(
    two_models: FlaskClient, recorder: Recorder, translate: Callable[..., TestResponse]
) -> None:
    assert translate(two_models, texts=["Moi."], source="fr", target="fi", nbest=2).status_code == 200
    assert [(request.model, request.options.nbest) for request, _ in recorder.requests] == [("fr-en", 1), ("many", 2)]


@pytest.mark.parametrize("nbest", [0, -1, 11, 2**31 - 1])
def test_how_many_alternatives_is_limited(
    two_models: FlaskClient, translate: Callable[..., TestResponse], nbest: int
) -> None:
    answer = translate(two_models, texts=["Moi."], source="fr", nbest=nbest)
    assert answer.status_code == 400
    assert answer.json["errors"][0]["message"] == f"nbest: 1 to 10 were expected, not {nbest}."


@pytest.mark.parametrize(
    ("source", "target"), [("FR", "EN"), ("fr-FR", "en-US"), ("fr_FR", "en_GB"), ("fra", "eng"), ("fre", "en-AU")]
)
def test_the_answer_says_which_languages_were_understood(
    two_models: FlaskClient, recorder: Recorder, mutation: str, source: str, target: str
) -> None:
    variables = {"input": {"texts": ["Moi."], "source": source, "target": target}}
    query = mutation.replace("model version", "source target model")
    answer = two_models.post("/graphql", json={"query": query, "variables": variables}).json["data"]["translate"]
    assert (answer["source"], answer["target"], answer["model"]) == ("fr", "en", "fr-en")
    [(request, _)] = recorder.requests
    assert (request.source, request.target) == ("fr", "en")


def test_no_texts_are_answered_with_none_and_ask_nobody(
    two_models: FlaskClient, recorder: Recorder, translate: Callable[..., TestResponse]
) -> None:
    answer = translate(two_models, texts=[], target="fi")
    assert answer.json["data"]["translate"]["translations"] == []
    assert recorder.requests == []
