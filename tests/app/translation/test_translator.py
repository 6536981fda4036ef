"""What every translator does, the echo and the one behind the queue alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from app.broker.rpc import CeleryTranslator
from app.translation.translate import ask_models
from app.translation.translator import EchoTranslator, Translator
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import SentenceResult, TextResult, TranslateReply
from tasks.contract.request import RequestOptions, TranslateRequest
from tasks.registry.file import RegistryFile

REGISTRY = Path(__file__).parents[3] / "models.toml"


@pytest.fixture(scope="module")
def with_worker(broker, start_worker) -> str:
    start_worker(broker.url, app="echo")
    return broker.url


@pytest.fixture(params=["echo", pytest.param("celery", marks=pytest.mark.broker)])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[], Translator]]:
    """Makes translators, which are closed after the test."""
    made: list[Translator] = []

    def make() -> Translator:
        if request.param == "echo":
            made.append(EchoTranslator())
        else:
            url = request.getfixturevalue("with_worker")
            made.append(CeleryTranslator.from_config(RegistryFile(REGISTRY), url))
        return made[-1]

    yield make
    for translator in made:
        translator.close()


@pytest.fixture
def translator(make: Callable[[], Translator]) -> Translator:
    return make()


def ask(*texts: str, timeout: float = 30, options: RequestOptions | None = None) -> TranslateRequest:
    return TranslateRequest(
        texts=texts,
        source="fr",
        target="en",
        model="fr-en",
        deadline=time.time() + timeout,
        options=options or RequestOptions(),
    )


def send(translator: Translator, *texts: str, **kwargs: object) -> TranslateReply:
    return ask_models(translator, str(uuid4()), [ask(*texts, **kwargs)])  # type: ignore[arg-type]


def test_one_result_per_text_in_order(translator: Translator) -> None:
    reply = send(translator, "un", "deux", "trois")
    assert reply.results == tuple(
        TextResult(text, 0.0, sentences=(SentenceResult((0, len(text)), (0, len(text)), 0.0),))
        for text in ("un", "deux", "trois")
    )
    assert (reply.model, reply.version, reply.error) == ("fr-en", "echo", None)


def test_no_texts_no_results(translator: Translator) -> None:
    assert send(translator).results == ()


@pytest.mark.parametrize("text", ["é\n\n  – œuvre\u2028", "\x00\u202e\ufeff", "\ud800", "🦜" * 5_000, '{"v": 1}', "\\"])
def test_texts_arrive_as_they_were_sent(translator: Translator, text: str) -> None:
    assert send(translator, text).results[0].text == text


def test_alternatives_are_those_besides_the_best(translator: Translator) -> None:
    (result,) = send(translator, "un", options=RequestOptions(beam=4, nbest=3)).results
    assert len(result.alternatives) == 2


def test_a_deadline_that_has_passed_is_a_timeout(translator: Translator) -> None:
    with pytest.raises(TolkError) as caught:
        send(translator, "un", timeout=-1)
    assert caught.value.code is Code.TIMEOUT


def test_cancelling_what_is_not_there_changes_nothing(translator: Translator) -> None:
    assert translator.cancel("nobody", None) is False
    translator.abandon("nobody", None)
    assert send(translator, "un").results[0].text == "un"


def test_check_passes_when_a_request_would(translator: Translator) -> None:
    translator.check()


def test_replies_find_their_threads(translator: Translator) -> None:
    texts = [f"phrase {number}" for number in range(640)]
    with ThreadPoolExecutor(64) as threads:
        replies = list(threads.map(lambda text: send(translator, text), texts))
    assert [reply.results[0].text for reply in replies] == texts


def test_replies_find_threads_that_live_for_one_request(translator: Translator) -> None:
    answers: dict[str, str | None] = {}

    def one(text: str) -> None:
        answers[text] = send(translator, text).results[0].text

    for turn in range(20):
        threads = [threading.Thread(target=one, args=(f"{turn}.{number}",)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 320
    assert all(question == answer for question, answer in answers.items())


def test_after_close_it_is_unavailable(translator: Translator) -> None:
    send(translator, "un")
    translator.close()
    for call in (lambda: send(translator, "un"), translator.check):
        with pytest.raises(TolkError) as caught:
            call()
        assert caught.value.code is Code.UNAVAILABLE


def test_close_can_be_called_twice_and_unused(make: Callable[[], Translator]) -> None:
    unused = make()
    unused.close()
    unused.close()
