"""A request that does not say which language its texts are in: FID-40 to FID-44."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.accounts import keys
from app.accounts.keys import Scope
from app.broker.rpc import CeleryTranslator
from app.database.transactions import Database
from app.settings import Settings
from app.translation.outcome import Outcome
from app.translation.parts import divide
from app.translation.translator import EchoTranslator, Flight
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import Failure, TextResult, TranslateReply
from tasks.contract.request import TranslateRequest
from tasks.registry.entry import Entry, Pair
from tasks.registry.file import RegistryFile, load_registry
from tasks.registry.ways import Registry
from text.detection import Detector
from text.languages import canonical

MODELS = """
[models.fr-en]
reference = "fr-en"
pairs = [{ source = "fr", target = "en" }]
[models.deu-en]
reference = "./deu-en"
pairs = [{ source = "deu", target = "en" }]
[models.en-fi]
reference = "./en-fi"
pairs = [{ source = "en", target = "fi" }]
"""
FRENCH = "Je vais dormir, parce qu'il est déjà très tard."
GERMAN = "Ich gehe jetzt schlafen, weil es schon sehr spät ist."
ENGLISH = "I am going to bed now because it is already very late."
POLISH = "Dzień dobry, gdzie jest najbliższa biblioteka?"
DOCUMENT = """mutation ($input: TranslateInput!) { translate(input: $input) {
  requestId source target model version via
  translations { text source model version via detected { confidence fromNeighbours } error { code message } } } }"""


class Versions(EchoTranslator):
    """An echo whose answer names the model. It keeps what it was asked, and calls `then` at each request."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[TranslateRequest] = []
        self.flights = 0
        self.then: Callable[[TranslateRequest], None] = lambda _: None

    def begin(self, request_id: str, principal: str | None, caller: str = "") -> AbstractContextManager[Flight]:
        self.flights += 1
        return super().begin(request_id, principal, caller)

    def ask(self, request: TranslateRequest) -> TranslateReply:
        self.requests.append(request)
        self.then(request)
        results = tuple(
            TextResult(error=Failure(Code.BAD_INPUT, "No."))
            if "#" in text
            else TextResult(f"{request.model}: {text}", -0.5)
            for text in request.texts
        )
        return TranslateReply(request.model, f"v-{request.model}", results=results)


@pytest.fixture
def translator() -> Versions:
    return Versions()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(MODELS)
    return path


@pytest.fixture
def send(models: Path, translator: Versions) -> Callable[..., Any]:
    client = create_app(Settings(models=models), translator).test_client()
    return lambda *texts, **fields: answer(client, *texts, **fields)


def answer(client: FlaskClient, *texts: str, **fields: Any) -> Any:
    variables = {"input": {"texts": texts, "target": "en", **fields}}
    found = client.post("/graphql", json={"query": DOCUMENT, "variables": variables}).json
    return found["data"]["translate"] if found.get("data") else found["errors"][0]


def test_each_text_goes_to_a_model_for_its_language(send: Callable[..., Any], translator: Versions) -> None:
    found = send(FRENCH, GERMAN, "123", "Bonjour à tous, mes amis.")
    assert [each["text"] for each in found["translations"]] == [
        f"fr-en: {FRENCH}",
        f"deu-en: {GERMAN}",
        "123",
        "fr-en: Bonjour à tous, mes amis.",
    ]
    assert [each["source"] for each in found["translations"]] == ["fr", "de", None, "fr"]
    assert [each["model"] for each in found["translations"]] == ["fr-en", "deu-en", None, "fr-en"]
    assert [each["version"] for each in found["translations"]] == ["v-fr-en", "v-deu-en", None, "v-fr-en"]
    assert [each["detected"]["confidence"] > 0.9 for each in found["translations"]] == [True, True, False, True]
    assert (found["source"], found["target"]) == (None, "en")
    assert (found["model"], found["version"], found["via"]) == ("fr-en, deu-en", "v-fr-en, v-deu-en", [])
    assert [(request.source, len(request.texts)) for request in translator.requests] == [("fr", 2), ("de", 1)]
    assert translator.flights == 1


def test_texts_in_one_language_are_one_message(send: Callable[..., Any], translator: Versions) -> None:
    found = send(GERMAN, "Danke schön.", target="EN-us")
    assert (found["source"], found["target"], found["model"], found["version"]) == ("de", "en", "deu-en", "v-deu-en")
    assert [request.texts for request in translator.requests] == [(GERMAN, "Danke schön.")]


@pytest.mark.parametrize("fields", [{"source": "fr"}, {"source": "fr_FR"}, {"model": "fr-en"}])
def test_nothing_is_detected_where_one_language_is_possible(
    models: Path, fields: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Detector, "detect", None)  # it must not be loaded for this
    found = answer(create_app(Settings(models=models), Versions()).test_client(), GERMAN, **fields)
    [translation] = found["translations"]
    assert (translation["source"], translation["model"], translation["detected"]) == ("fr", "fr-en", None)


def test_a_language_that_is_not_served_is_named_and_the_others_are_translated(send: Callable[..., Any]) -> None:
    """FID-43."""
    found = send(POLISH, FRENCH)["translations"]
    assert found[0]["error"] == {
        "code": "UNSUPPORTED_SOURCE",
        "message": "The text is in pl. No model translates from pl to en. Pairs: de-en, fr-en, en-fi. If it is in "
        "another language, set source.",
    }
    assert (found[0]["source"], found[0]["model"]) == ("pl", None)
    assert found[1]["text"] == f"fr-en: {FRENCH}"


def test_a_text_in_the_target_language_stays_as_it_is(send: Callable[..., Any], translator: Versions) -> None:
    """FID-44."""
    found = send(ENGLISH)
    assert [(each["text"], each["source"], each["model"]) for each in found["translations"]] == [(ENGLISH, "en", None)]
    assert (found["model"], found["version"], found["source"]) == ("", None, "en")
    assert translator.requests == []


def test_what_is_clearly_in_another_language_goes_through_the_one_that_leads_on(
    send: Callable[..., Any], translator: Versions
) -> None:
    found = send(FRENCH, ENGLISH, "Moi.", target="fi")["translations"]
    assert [each["model"] for each in found] == ["fr-en+en-fi", "en-fi", "en-fi"]
    assert [each["via"] for each in found] == [["en"], [], []]
    assert [request.model for request in translator.requests] == ["fr-en", "en-fi", "en-fi"]


def test_a_short_text_goes_by_its_neighbours_and_the_answer_says_so(send: Callable[..., Any]) -> None:
    """FID-42."""
    alone = send("Information")["translations"][0]
    for sentence, source in ((GERMAN, "de"), (FRENCH, "fr")):
        _, beside = send(sentence, "Information")["translations"]
        assert beside["source"] == source
        assert beside["detected"]["fromNeighbours"] == (alone["source"] != source)
    assert not alone["detected"]["fromNeighbours"]


@pytest.mark.parametrize("text", [POLISH, "ᎣᏏᏲ ᏙᎯᏧ"])
def test_the_caller_may_say_what_to_assume(send: Callable[..., Any], text: str) -> None:
    assert send(text, FRENCH, assume="de_DE")["source"] is None
    assert [each["model"] for each in send(text, FRENCH, assume="de_DE")["translations"]] == ["deu-en", "fr-en"]
    assert send(text, assume="sv")["extensions"]["code"] == "UNKNOWN_MODEL"


def test_what_no_model_would_take_is_refused_here_too(send: Callable[..., Any]) -> None:
    assert send("\x00", FRENCH)["translations"][0]["error"]["code"] == "BAD_INPUT"


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.CANCELLED])
def test_the_end_of_one_message_is_that_of_the_request(
    send: Callable[..., Any], translator: Versions, code: Code
) -> None:
    def fail(request: TranslateRequest) -> None:
        if request.source == "de":
            raise TolkError(code, "Ended.")

    translator.then = fail
    assert send(FRENCH, GERMAN, ENGLISH, target="en")["extensions"]["code"] == code
    assert [request.source for request in translator.requests] == ["fr", "de"]
    assert send(GERMAN, FRENCH)["extensions"]["code"] == code
    assert [request.source for request in translator.requests] == ["fr", "de", "de"]


class Paid:
    """A web tier whose callers have a key, and what that has used."""

    def __init__(self, database: Database, models: Path, translator: Versions) -> None:
        self.client = create_app(Settings(database=database.url, models=models), translator).test_client()
        secret = database.run(lambda connection: keys.create(connection, "ops", list(Scope), None, 10_000))
        self.client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {secret}"

    @property
    def charged(self) -> int:
        found = self.client.post("/graphql", json={"query": "{ usage { characters } }"}).json
        characters: int = found["data"]["usage"]["characters"]
        return characters


@pytest.fixture
def paid(database: Database, models: Path, translator: Versions) -> Paid:
    return Paid(database, models, translator)


@pytest.mark.parametrize("key", [None, "a"])
def test_only_what_models_translated_is_charged(paid: Paid, translator: Versions, key: str | None) -> None:
    texts = [FRENCH, GERMAN, POLISH, ENGLISH, "123", f"# {FRENCH}"]
    for _ in range(2):
        found = answer(paid.client, *texts, idempotencyKey=key)
        codes = [each["error"] and each["error"]["code"] for each in found["translations"]]
        assert codes == [None, None, "UNSUPPORTED_SOURCE", None, None, "BAD_INPUT"]
        assert [each["source"] for each in found["translations"]] == ["fr", "de", "pl", "en", None, "fr"]
    times = 1 if key else 2
    assert paid.charged == times * len(FRENCH + GERMAN)
    assert len(translator.requests) == 2 * times
    translator.then = lambda _: (_ for _ in ()).throw(TolkError(Code.UNAVAILABLE, "No worker."))
    assert answer(paid.client, *texts)["extensions"]["code"] == "UNAVAILABLE"
    assert paid.charged == times * len(FRENCH + GERMAN)


def test_a_repeat_gets_the_first_answer_also_when_other_models_are_on_offer(
    paid: Paid, models: Path, eventually: Callable[..., None]
) -> None:
    first = answer(paid.client, FRENCH, GERMAN, idempotencyKey="a")
    models.write_text(MODELS.replace("deu-en", "other"))
    eventually(lambda: answer(paid.client, GERMAN)["model"] == "other")
    assert answer(paid.client, FRENCH, GERMAN, idempotencyKey="a") == first


def test_a_repeat_may_spell_its_languages_in_another_way(paid: Paid, translator: Versions) -> None:
    first = answer(paid.client, FRENCH, source="fr", target="en", idempotencyKey="a")
    assert answer(paid.client, FRENCH, source="FRA", target="eng", idempotencyKey="a") == first
    assert answer(paid.client, FRENCH, target="en", idempotencyKey="a")["extensions"]["code"] == "BAD_INPUT"
    assert len(translator.requests) == 1


def test_an_answer_that_an_earlier_release_stored_has_the_language_of_the_request(models: Path) -> None:
    registry = load_registry(models)
    division = divide(["Un."], registry, Detector(), source="fra", target="en", model=None)
    stored = TranslateReply("fr-en", "v1", results=(TextResult("One.", -0.5),)).encode()
    outcome = Outcome.decode(stored, division)
    assert (outcome.source, outcome.model, outcome.version) == ("fr", "fr-en", "v1")
    assert [(each.source, each.model, each.version) for each in outcome.origins] == [("fr", "fr-en", "v1")]
    assert TranslateReply.decode(outcome.encode()) == TranslateReply.decode(stored)


def test_a_variant_goes_to_its_own_model() -> None:
    """FID-45."""
    pairs = ("pt-PT", "pt-BR", "zh_Hans", "zh_Hant")
    registry = Registry({each: Entry(each, "x", (Pair(canonical(each), "en"),)) for each in pairs})
    texts = ["O usuário salvou o arquivo.", "O utilizador guardou o ficheiro.", "這是繁體中文。", "这是简体中文。"]
    division = divide(texts, registry, Detector(), source=None, target="en", model=None)
    assert [part.way[0].model.name for part in division.parts] == ["pt-BR", "pt-PT", "zh_Hant", "zh_Hans"]


def test_detect_says_which_languages_texts_are_in(models: Path) -> None:
    client = create_app(Settings(models=models), Versions()).test_client()
    document = """query ($texts: [String!]!) { detect(texts: $texts) {
      language confidence served fromNeighbours candidates { language probability } } }"""
    body = {"query": document, "variables": {"texts": [FRENCH, POLISH, "42"]}}
    french, polish, none = client.post("/graphql", json=body).json["data"]["detect"]
    assert (french["language"], french["served"]) == ("fr", True)
    assert french["candidates"][0] == {"language": "fr", "probability": french["confidence"]}
    assert sorted(each["language"] for each in french["candidates"]) == ["de", "en", "fr"]
    assert (polish["language"], polish["served"]) == ("pl", False)
    assert none == {"language": None, "confidence": 0, "served": False, "fromNeighbours": False, "candidates": []}
    body["variables"] = {"texts": ["a"] * (Settings().max_texts + 1)}
    assert client.post("/graphql", json=body).json["errors"][0]["extensions"]["code"] == "BAD_INPUT"


def test_detect_counts_as_a_request_without_characters(database: Database, models: Path) -> None:
    paid = Paid(database, models, Versions())
    secret = database.run(lambda connection: keys.create(connection, "slow", [Scope.TRANSLATE], 1, None))
    paid.client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {secret}"
    body = {"query": f'{{ detect(texts: ["{FRENCH}"]) {{ language }} }}'}
    assert paid.client.post("/graphql", json=body).status_code == 200
    assert paid.client.post("/graphql", json=body).status_code == 429
    assert paid.charged == 0


# Over a real broker.


@pytest.fixture(scope="module")
def served(
    broker: PrivateRabbitMQ, start_worker: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FlaskClient, CeleryTranslator, Any]]:
    """A web tier and a worker whose models give every text back."""
    models = tmp_path_factory.mktemp("models") / "models.toml"
    models.write_text(MODELS.replace("fr-en", "parts-fr").replace("deu-en", "parts-de"))
    worker = start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
    translator = CeleryTranslator.from_config(RegistryFile(models), broker.url)
    assert translator.replies.ready.wait(30)
    yield create_app(Settings(models=models), translator).test_client(), translator, worker
    translator.close()


@pytest.mark.broker
def test_texts_in_two_languages_come_back_in_one_answer(
    served: tuple[FlaskClient, CeleryTranslator, Any],
) -> None:
    found = answer(served[0], GERMAN, FRENCH, "42", GERMAN)
    assert [each["text"] for each in found["translations"]] == [GERMAN, FRENCH, "42", GERMAN]
    assert [each["model"] for each in found["translations"]] == ["parts-de", "parts-fr", None, "parts-de"]
    assert all(each["version"] for each in found["translations"] if each["model"])


@pytest.mark.broker
@pytest.mark.parametrize("texts", [("#sleep 60", GERMAN), (GERMAN, "#sleep 60")])
def test_cancelling_ends_all_messages(
    served: tuple[FlaskClient, CeleryTranslator, Any], eventually: Callable[..., None], texts: tuple[str, str]
) -> None:
    client, translator, worker = served
    request_id = str(uuid4())
    variables = {"input": {"texts": texts, "target": "en", "assume": "fr", "timeout": 60}}
    body = {"query": DOCUMENT, "variables": variables}
    with ThreadPoolExecutor(1) as threads:
        headers = {"X-Request-Id": request_id}
        waiting = threads.submit(client.application.test_client().post, "/graphql", json=body, headers=headers)
        eventually(lambda: any(each.request_id == request_id for each in translator.replies.pending.values()))
        eventually(lambda: worker.logged(request_id, "received"))
        assert translator.cancel(request_id, None)
        assert waiting.result(timeout=20).json["errors"][0]["extensions"]["code"] == "CANCELLED"
    assert translator.replies.pending == {}
