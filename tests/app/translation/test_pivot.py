"""French to German through English: what becomes of the texts, and, over a real broker, of the request between legs."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from kombu import Connection

from app import create_app
from app.broker.rpc import CeleryTranslator
from app.settings import Settings
from app.translation import pivot
from app.translation.translate import ask_models
from app.translation.translator import EchoTranslator
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import MESSAGE_BYTES
from tasks.contract.reply import (
    AlternativeResult,
    Failure,
    Flag,
    RequestTimings,
    SentenceResult,
    TextResult,
    TranslateReply,
)
from tasks.contract.request import RequestOptions, TranslateRequest
from tasks.queues import topology
from tasks.registry.file import RegistryFile

MODELS = """
[models.pivot-fr-en]
reference = "fr-en"
pairs = [{ source = "fr", target = "en" }]
decoding = { beam = 3 }
[models.pivot-en-de]
reference = "fr-en"
pairs = [{ source = "en", target = "de" }]
decoding = { beam = 2, length_penalty = 0.5 }
[models.pivot-en-fi]
reference = "fr-en"
pairs = [{ source = "en", target = "fi" }]
"""
MODEL = "pivot-fr-en+pivot-en-de"
DOCUMENT = """mutation ($input: TranslateInput!) { translate(input: $input) {
  requestId model version via
  translations { text score flags error { code message } sentences { source text score flags } } } }"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "models.toml"
    path.write_text(MODELS)
    return path


def sentence(text: str, translation: str, flags: tuple[Flag, ...] = ()) -> TextResult:
    whole = SentenceResult((0, len(text)), (0, len(translation)), -0.5, flags)
    return TextResult(translation, -0.5, (AlternativeResult("other", -1.0),), flags, (whole,))


def ask(*texts: str, **fields: Any) -> TranslateRequest:
    defaults = {"source": "fr", "target": "en", "model": "pivot-fr-en", "deadline": time.time() + 30}
    return TranslateRequest(texts, **{**defaults, **fields})


def onward(request: TranslateRequest) -> TranslateRequest:
    return replace(request, texts=(), source="en", target="de", model="pivot-en-de")


class Dictionary(EchoTranslator):
    """Knows what each model makes of a text, gives back what it does not know, and keeps what it was asked."""

    def __init__(self, **known: TextResult) -> None:
        super().__init__()
        self.known = known
        self.requests: list[TranslateRequest] = []

    def ask(self, request: TranslateRequest) -> TranslateReply:
        self.requests.append(request)
        reply = super().ask(request)
        results = zip(request.texts, reply.results, strict=True)
        return replace(
            reply,
            version=f"v{len(self.requests)}",
            results=tuple(self.known.get(text, result) for text, result in results),
            timings=RequestTimings(1, 2, 3, 4),
        )


def post(models: Path, translator: EchoTranslator, *texts: str, **fields: Any) -> Any:
    client = create_app(Settings(models=models), translator).test_client()
    variables = {"input": {"texts": texts, "source": "fr", "target": "de", **fields}}
    return client.post("/graphql", json={"query": DOCUMENT, "variables": variables})


def translate(models: Path, translator: EchoTranslator, *texts: str, **fields: Any) -> dict[str, Any]:
    payload: dict[str, Any] = post(models, translator, *texts, **fields).json["data"]["translate"]
    return payload


def test_what_the_first_model_makes_the_second_translates(models: Path) -> None:
    translator = Dictionary(
        Bonjour=sentence("Bonjour", "Hello", (Flag.SPLIT, Flag.REPETITION)),
        Hello=sentence("Hello", "Guten Tag", (Flag.UNKNOWN_TOKENS, Flag.SPLIT)),
    )
    payload = translate(models, translator, "Bonjour", "12", timeout=20)
    flags = ["REPETITION", "UNKNOWN_TOKENS", "SPLIT"]
    assert (payload["model"], payload["version"], payload["via"]) == (MODEL, "v1+v2", ["en"])
    assert payload["translations"] == [
        {
            "text": "Guten Tag",
            "score": -1.0,
            "flags": flags,
            "error": None,
            "sentences": [{"source": "Bonjour", "text": "Guten Tag", "score": -1.0, "flags": flags}],
        },
        {
            "text": "12",
            "score": 0.0,
            "flags": [],
            "error": None,
            "sentences": [{"source": "12", "text": "12", "score": 0.0, "flags": []}],
        },
    ]
    first, second = translator.requests
    options = RequestOptions(beam=3, unset=("length_penalty",))
    assert first == ask("Bonjour", "12", deadline=first.deadline, caller=first.caller, options=options)
    assert second == replace(onward(first), texts=("Hello", "12"), options=RequestOptions(beam=2, length_penalty=0.5))


def test_a_direct_translation_is_through_nothing(models: Path) -> None:
    payload = translate(models, Dictionary(), "Bonjour", target="en")
    assert (payload["model"], payload["version"], payload["via"]) == ("pivot-fr-en", "v1", [])


def test_a_model_that_is_named_is_taken_alone(models: Path) -> None:
    translator = Dictionary()
    for model in ("pivot-fr-en", "pivot-en-de", MODEL):
        answer = post(models, translator, "Bonjour", model=model)
        assert answer.status_code == 404
    assert translator.requests == []


def test_alternatives_are_of_no_leg_and_what_was_measured_adds() -> None:
    translator = Dictionary(Bonjour=sentence("Bonjour", "Hello"), Hello=sentence("Hello", "Guten Tag"))
    reply = ask_models(translator, "", [ask("Bonjour"), onward(ask())])
    assert reply.results[0].alternatives == ()
    assert reply.timings == RequestTimings(2, 4, 6, 8)


def test_a_text_that_failed_keeps_its_error_and_goes_no_further(models: Path) -> None:
    translator = Dictionary(
        bad=TextResult(error=Failure(Code.BAD_INPUT, "A lone surrogate.")),
        late=sentence("late", "too late"),
        **{"too late": TextResult(error=Failure(Code.TIMEOUT, "Too slow."))},
    )
    payload = translate(models, translator, "un", "bad", "late", "deux")
    outcomes = [(each["text"], each["error"] and each["error"]["code"]) for each in payload["translations"]]
    assert outcomes == [("un", None), (None, "BAD_INPUT"), (None, "TIMEOUT"), ("deux", None)]
    assert [request.texts for request in translator.requests] == [
        ("un", "bad", "late", "deux"),
        ("un", "too late", "deux"),
    ]


def test_where_every_text_failed_the_second_model_is_not_asked(models: Path) -> None:
    translator = Dictionary(bad=TextResult(error=Failure(Code.BAD_INPUT, "A lone surrogate.")))
    payload = translate(models, translator, "bad", "bad")
    assert (payload["model"], payload["version"], payload["via"]) == (MODEL, None, ["en"])
    assert [each["error"]["code"] for each in payload["translations"]] == ["BAD_INPUT"] * 2
    assert len(translator.requests) == 1


def test_blank_texts_come_back_and_no_texts_ask_nobody(models: Path) -> None:
    [blank, *_] = translate(models, Dictionary(), " \n", "un")["translations"]
    assert blank == {"text": " \n", "score": None, "flags": [], "error": None, "sentences": []}
    translator = Dictionary()
    payload = translate(models, translator)
    assert (payload["model"], payload["version"], payload["via"]) == (MODEL, None, ["en"])
    assert payload["translations"] == translator.requests == []


@pytest.mark.parametrize("code", [Code.OVERLOADED, Code.UNAVAILABLE, Code.TIMEOUT, Code.CANCELLED])
def test_trouble_of_the_second_leg_is_the_requests(models: Path, code: Code) -> None:
    class Failing(Dictionary):
        def ask(self, request: TranslateRequest) -> TranslateReply:
            if request.target == "de":
                raise TolkError(code, "Full.", 2.0)
            return super().ask(request)

    answer = post(models, Failing(), "un")
    assert answer.json["data"] is None
    assert answer.json["errors"][0]["extensions"]["code"] == code
    assert answer.headers["Retry-After"] == "2"


def test_a_translation_in_between_may_be_longer_than_a_text(models: Path) -> None:
    longer = "x" * 20_001
    payload = translate(models, Dictionary(un=sentence("un", longer)), "un")
    assert payload["translations"][0]["text"] == longer


class Rolling(Dictionary):
    """Workers of which the first `old` answers are of an earlier release, which knows no holds."""

    def __init__(self, old: int) -> None:
        super().__init__()
        self.old = old

    def ask(self, request: TranslateRequest) -> TranslateReply:
        reply = super().ask(request)
        return replace(reply, honoured=("lines",)) if len(self.requests) <= self.old else reply


@pytest.mark.parametrize("chosen", [{"holds": "OFF"}, {"preserve": ["Word"]}])
def test_what_a_caller_chose_is_asked_of_another_worker_if_one_does_not_know_it(
    models: Path, chosen: dict[str, Any]
) -> None:
    translator = Rolling(old=2)
    payload = translate(models, translator, "Bonjour", target="en", **chosen)
    assert payload["translations"][0]["text"] == "Bonjour"
    assert len(translator.requests) == 3


def test_if_no_worker_knows_what_a_caller_chose_that_is_said(models: Path) -> None:
    translator = Rolling(old=9)
    answer = post(models, translator, "Bonjour", target="en", preserve=["Word"])
    assert answer.status_code == 503
    [error] = answer.json["errors"]
    assert error["extensions"]["code"] == "UNAVAILABLE"
    assert "does not know preserve" in error["message"]
    assert len(translator.requests) == 3


def test_an_old_workers_answer_is_taken_where_a_caller_chose_nothing(models: Path) -> None:
    translator = Rolling(old=9)
    assert translate(models, translator, "Bonjour", target="en")["translations"][0]["text"] == "Bonjour"
    assert len(translator.requests) == 1


def test_what_no_message_has_room_for_fails_alone() -> None:
    half = '"😀' * (MESSAGE_BYTES // 2 // len(r"\"\ud83d\ude00"))
    translator = Dictionary(one=sentence("one", half), two=sentence("two", half), three=sentence("three", "short"))
    reply = ask_models(translator, "", [ask("one", "two", "three"), onward(ask())])
    assert [result.error and result.error.code for result in reply.results] == [None, Code.BAD_INPUT, None]
    assert translator.requests[1].texts == (half, "short")
    assert len(json.dumps([[translator.requests[1].encode()], {}, {}])) < MESSAGE_BYTES


# Over a real broker.


@pytest.fixture(scope="module")
def workers(broker: PrivateRabbitMQ, start_worker: Callable[..., Any], models: Path) -> tuple[Any, Any]:
    """One for each model; the model gives every text back."""
    queues = ("tolk.translate.pivot-fr-en.interactive", "tolk.translate.pivot-en-de.interactive")
    first, second = (start_worker(broker.url, "-Q", queue, app="echo", TOLK_MODELS=str(models)) for queue in queues)
    return first, second


@pytest.fixture(scope="module")
def connect(broker: PrivateRabbitMQ, models: Path) -> Iterator[Callable[[], CeleryTranslator]]:
    """Makes translators as different web processes have them."""
    with ExitStack() as stack:

        def make() -> CeleryTranslator:
            translator = CeleryTranslator.from_config(RegistryFile(models), broker.url)
            stack.callback(translator.close)
            assert translator.replies.ready.wait(30)
            return translator

        yield make


@pytest.fixture(scope="module")
def translator(connect: Callable[[], CeleryTranslator]) -> CeleryTranslator:
    return connect()


BETWEEN, AT_THE_END = 1, 2  # after so many legs


def fly(
    translator: CeleryTranslator,
    request_id: str,
    legs: Sequence[TranslateRequest],
    after: int,
    do: Callable[[], object],
) -> TranslateReply:
    """The reply to a request by several models; something is done meanwhile, after so many of them have answered."""
    with translator.begin(request_id, legs[0].principal) as flight:
        answered = count(1)

        def ask_and_do(leg: TranslateRequest) -> TranslateReply:
            reply = flight.ask(leg)
            if next(answered) == after:
                do()
            return reply

        return pivot.translate(legs, ask_and_do)


@pytest.mark.broker
@pytest.mark.parametrize(
    ("when", "end", "code"),
    [
        (BETWEEN, lambda one, _, request_id: one.cancel(request_id, "me"), Code.CANCELLED),
        (AT_THE_END, lambda one, _, request_id: one.cancel(request_id, "me"), Code.CANCELLED),
        (BETWEEN, lambda _, other, request_id: other.cancel(request_id, "me"), Code.CANCELLED),
        (BETWEEN, lambda one, _, request_id: one.abandon(request_id, "me") or True, Code.CANCELLED),
        (BETWEEN, lambda one, _, request_id: one.close() or True, Code.UNAVAILABLE),
    ],
    ids=["cancelled", "cancelled at the end", "cancelled elsewhere", "abandoned", "closed"],
)
def test_between_the_legs_and_at_the_end_a_request_can_be_ended(
    workers, connect, translator, when: int, end: Callable[..., bool], code: Code
) -> None:
    one, other = connect(), translator
    request, request_id = ask("un", principal="me"), str(uuid4())
    answers = []
    with pytest.raises(TolkError) as caught:
        fly(one, request_id, [request, onward(request)], when, lambda: answers.append(end(one, other, request_id)))
    assert caught.value.code is code
    assert answers == [True]
    assert workers[1].logged(request_id, "received") == (when == AT_THE_END)


@pytest.mark.broker
def test_between_the_legs_an_id_is_in_flight(workers, translator) -> None:
    request = ask("un", principal="me")
    refused = []

    def send_again() -> None:
        with pytest.raises(TolkError, match="still in flight") as caught:
            ask_models(translator, "taken", [request])
        refused.append(caught.value.code)
        assert not translator.cancel("taken", "you")

    reply = fly(translator, "taken", [request, onward(request)], BETWEEN, send_again)
    assert (reply.model, reply.results[0].text) == (MODEL, "un")
    assert refused == [Code.BAD_INPUT]
    assert translator.replies.pending == {}
    assert ask_models(translator, "taken", [request]).results[0].text == "un"


@pytest.mark.broker
def test_cancelling_reaches_the_second_model(workers, translator, eventually) -> None:
    request, request_id = ask("un"), str(uuid4())

    def ask_both() -> None:
        with translator.begin(request_id, None) as flight:
            flight.ask(request)
            flight.ask(replace(onward(request), texts=("#sleep 60",)))

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask_both)
        eventually(lambda: workers[1].logged(request_id, "received"))
        assert translator.cancel(request_id, None)
        with pytest.raises(TolkError) as caught:
            waiting.result()
    assert caught.value.code is Code.CANCELLED
    eventually(lambda: workers[1].logged(request_id, "CANCELLED"))  # with the news that it was cancelled


@pytest.mark.broker
def test_the_second_leg_has_a_deadline_and_a_queue_of_its_own(broker, workers, translator, eventually) -> None:
    request = ask("un")
    with pytest.raises(TolkError) as caught:
        ask_models(translator, "late", [request, replace(onward(request), deadline=time.time())])
    assert caught.value.code is Code.TIMEOUT
    queue = topology.translation_queue("pivot-en-fi", "interactive")  # which nobody takes from
    with Connection(broker.url) as connection:
        producer = connection.Producer()
        producer.publish({}, routing_key=queue.name, declare=[queue])
        for _ in range(topology.MAX_LENGTH["interactive"] + 50):
            producer.publish({}, routing_key=queue.name)
        bound = queue(connection.default_channel)
        eventually(lambda: bound.queue_declare(passive=True).message_count >= topology.MAX_LENGTH["interactive"])
        with pytest.raises(TolkError) as caught:
            ask_models(translator, "full", [request, replace(onward(request), target="fi", model="pivot-en-fi")])
        assert caught.value.code is Code.OVERLOADED
        bound.purge()


@pytest.mark.broker
def test_a_worker_that_dies_in_the_second_leg_is_replaced(
    broker, workers, models: Path, start_web: Callable[..., str], start_worker: Callable[..., Any], eventually
) -> None:
    first, second = workers
    url = start_web(broker.url, TOLK_MODELS=str(models))
    request_id = str(uuid4())
    variables = {"input": {"texts": ["#sleep 2", "un"], "source": "fr", "target": "de", "timeout": 60}}

    def send() -> Any:
        body = {"query": DOCUMENT, "variables": variables}
        return requests.post(f"{url}/graphql", json=body, headers={"X-Request-Id": request_id}, timeout=90).json()

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(send)
        eventually(lambda: second.logged(request_id, "received"))
        second.stop(signal.SIGKILL)
        third = start_worker(
            broker.url, "-Q", "tolk.translate.pivot-en-de.interactive", app="echo", TOLK_MODELS=str(models)
        )
        payload = answer.result()["data"]["translate"]
    assert (payload["requestId"], payload["model"], payload["via"]) == (request_id, MODEL, ["en"])
    assert [each["text"] for each in payload["translations"]] == ["#sleep 2", "un"]
    assert third.logged(request_id, "received")
    assert first.log.read_text().count(f"[{request_id}.") == 2  # received, and answered: once
