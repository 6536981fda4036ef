"""The whole path of a request, from HTTP over gunicorn, RabbitMQ and a worker to the model and back, with 64 clients.

Every request asks for two things: a sentence, whose translation was made beforehand without any of this, and a blank
text that no other request sends, which comes back as it is. So an answer that belongs to another question is seen.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from app.web.errors import STATUS
from launch.rabbitmq import PrivateRabbitMQ
from tasks.contract.errors import Code

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

CLIENTS = 64
SENTENCES = Path(__file__).parent / "data" / "sentences.fr"
MUTATION = """
mutation Translate($input: TranslateInput!) {
  translate(input: $input) { requestId translations { text error { code } } }
}
"""
OK = "OK"
FULL = {OK, Code.OVERLOADED}  # the outcomes that CLIENTS clients may see on a machine with other work

SLACK = 5.0  # seconds after its deadline that an answer may take to arrive on a machine that is busy
RECOVERY = 15.0  # seconds after which the service uses a restarted broker again

numbers = itertools.count()


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    """Short sentences and their translations, as far as the model is sure of them: where the runner-up is as good, or
    a repetition was mended, the batch or the deadline may decide."""
    from models.engine.options import DecodingOptions
    from models.local import LocalTranslator

    sentences = [line for line in SENTENCES.read_text(encoding="utf-8").splitlines() if 12 < len(line) < 32]
    with LocalTranslator.load("fr-en") as model:
        results = model.translate(sentences, source="fr", target="en", options=DecodingOptions(beam=4, nbest=2)).results
    found = {
        sentence: str(result.text)
        for sentence, result in zip(sentences, results, strict=True)
        if not result.flags and result.alternatives and result.score - result.alternatives[0].score > 0.01
    }
    assert len(found) > 20
    return found


@pytest.fixture
def seconds(pytestconfig: pytest.Config) -> float:
    return float(pytestconfig.getoption("--load-seconds"))


@pytest.fixture(scope="module")
def stage(new_broker) -> Iterator[PrivateRabbitMQ]:
    with new_broker() as running:
        yield running


@pytest.fixture(scope="module")
def url(stage: PrivateRabbitMQ, start_worker, start_web: Callable[..., str]) -> str:
    """The whole service."""
    start_worker(stage.url)
    return start_web(stage.url)


class Client:
    """Requests one sentence after the other, and counts the outcomes: OK, an error code, or the unexpected answer."""

    def __init__(self, url: str, expected: dict[str, str], first: int, timeout: float) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url = f"{url}/graphql"
        self._expected = expected
        self._sentences = itertools.cycle([*list(expected)[first:], *list(expected)[:first]])
        self._timeout = timeout
        self._session = requests.Session()

    def ask(self) -> None:
        sentence = next(self._sentences)
        blank = format(next(numbers), "b").replace("0", " ").replace("1", "\t")
        variables = {"input": {"texts": [sentence, blank], "target": "en", "timeout": self._timeout}}
        began = time.monotonic()
        response = self._session.post(self._url, json={"query": MUTATION, "variables": variables}, timeout=90)
        late = "late " if time.monotonic() > began + self._timeout + SLACK else ""
        self.outcomes[late + self._judge(response, sentence, blank)] += 1

    def _judge(self, response: requests.Response, sentence: str, blank: str) -> str:
        body = response.json()
        if errors := body.get("errors"):
            code = errors[0]["extensions"]["code"]
            return code if response.status_code == STATUS[Code(code)] else f"{code} with status {response.status_code}"
        answer = body["data"]["translate"]
        texts = [translation["text"] for translation in answer["translations"]]
        if (error := answer["translations"][0]["error"]) and texts == [None, blank]:
            return str(error["code"])
        if answer["requestId"] == response.headers["X-Request-Id"] and texts == [self._expected[sentence], blank]:
            return OK
        return f"crossed: {sentence!r}, {blank!r} became {texts}"

    def ask_anew(self) -> None:
        """Sends a request in a thread and on a connection of its own."""
        self._session = requests.Session()
        with ThreadPoolExecutor(1) as thread:
            thread.submit(self.ask).result()


def load(
    url: str, expected: dict[str, str], seconds: float, turn: Callable[[Client], None], timeout: float = 60
) -> Counter[str]:
    """The outcomes of CLIENTS clients that send requests for a number of seconds, at least one each."""
    clients = [Client(url, expected, first, timeout) for first in range(CLIENTS)]
    until = time.monotonic() + seconds

    def run(client: Client) -> None:
        turn(client)  # even where the machine is so busy that a thread begins late
        while time.monotonic() < until:
            turn(client)

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(run, clients))
    return sum((client.outcomes for client in clients), Counter())


@pytest.mark.parametrize("turn", [Client.ask, Client.ask_anew])
def test_every_reply_finds_its_question(
    url: str, expected: dict[str, str], seconds: float, turn: Callable[[Client], None]
) -> None:
    outcomes = load(url, expected, seconds, turn)
    assert set(outcomes) <= FULL, outcomes
    assert outcomes[OK]


def test_a_killed_broker_costs_errors_at_most(
    url: str, expected: dict[str, str], seconds: float, stage: PrivateRabbitMQ, eventually: Callable[..., None]
) -> None:
    def restart() -> float:
        time.sleep(seconds / 3)  # under load
        stage.kill()
        time.sleep(2)  # down
        stage.start()
        return time.monotonic()

    with ThreadPoolExecutor(1) as thread:
        restarted = thread.submit(restart)
        outcomes = load(url, expected, seconds, Client.ask, timeout=5)
        back = restarted.result()
    assert outcomes[OK]
    assert set(outcomes) <= {*FULL, Code.UNAVAILABLE, Code.TIMEOUT}, outcomes
    probe = Client(url, expected, 0, timeout=5)

    def succeeds() -> bool:
        probe.ask()
        return bool(probe.outcomes[OK])

    eventually(succeeds, max(0.0, back + RECOVERY - time.monotonic()))
    outcomes = load(url, expected, 1, Client.ask)
    assert set(outcomes) <= FULL, outcomes
    assert outcomes[OK]


def test_a_text_goes_there_and_back_through_both_models(
    stage: PrivateRabbitMQ, tmp_path: Path, start_worker, start_web: Callable[..., str]
) -> None:
    models = tmp_path / "models.toml"
    models.write_text(
        """
        models.there = { reference = "fr-en", pairs = [{ source = "fr", target = "en" }] }
        models.back = { reference = "en-fr", pairs = [{ source = "en", target = "fr-CA" }] }
        """,
        encoding="utf-8",
    )
    start_worker(stage.url, TOLK_MODELS=str(models))
    url = start_web(stage.url, TOLK_MODELS=str(models))
    document = """mutation { translate(input: {texts: ["Il pleut. Je vais dormir."], source: "fr", target: "fr-CA"}) {
      model via translations { text sentences { source } } } }"""
    answer = requests.post(f"{url}/graphql", json={"query": document}, timeout=90).json()["data"]["translate"]
    [translation] = answer["translations"]
    assert (answer["model"], answer["via"]) == ("there+back", ["en"])
    assert "pleut" in translation["text"]
    assert "dormir" in translation["text"]
    assert [each["source"] for each in translation["sentences"]] == ["Il pleut.", "Je vais dormir."]


def test_holds_and_numbers_come_through(url: str) -> None:
    """FID-4, FID-6."""
    mutation = """mutation ($input: TranslateInput!) { translate(input: $input) { translations { text flags } } }"""
    texts = [
        "Bonjour {name}, vous avez %d messages de <b>Paul</b>.",
        "Le prix est de 1 234,56 €.",
        "Je travaille chez Orange.",
    ]

    def translate(**options: object) -> list[tuple[str, list[str]]]:
        variables = {"input": {"texts": texts, "source": "fr", "target": "en", **options}}
        answer = requests.post(f"{url}/graphql", json={"query": mutation, "variables": variables}, timeout=60).json()
        return [(each["text"], each["flags"]) for each in answer["data"]["translate"]["translations"]]

    (placeholders, _), (price, flags), (firm, _) = translate(preserve=["Orange"])
    assert [placeholders.count(hold) for hold in ("{name}", "%d", "<b>", "</b>")] == [1, 1, 1, 1]
    assert ("€1,234.56" in price, flags) == (True, [])
    assert firm.count("Orange") == 1
    assert translate(holds="OFF")[1][1] == ["NUMBER_MISMATCH"]  # the model has no token for the currency


def test_alternatives_come_from_the_model(url: str) -> None:
    mutation = """mutation ($input: TranslateInput!) { translate(input: $input) {
      source target model translations { text score alternatives { text score } error { message } } } }"""
    variables = {"input": {"texts": ["Je vais dormir.", ""], "source": "fra", "target": "en-US", "nbest": 6}}
    answer = requests.post(f"{url}/graphql", json={"query": mutation, "variables": variables}, timeout=30).json()
    payload = answer["data"]["translate"]
    assert (payload["source"], payload["target"], payload["model"]) == ("fr", "en", "fr-en")
    sentence, blank = payload["translations"]
    texts = [each["text"] for each in sentence["alternatives"]]
    scores = [each["score"] for each in sentence["alternatives"]]
    assert len({sentence["text"], *texts}) == len(texts) + 1 > 3
    assert scores == sorted(scores, reverse=True)
    assert blank["alternatives"] == []
