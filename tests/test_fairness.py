"""The whole service, from HTTP to the model and back, while one caller sends far more than it can do.

Each caller has an address of its own. What a request waits for is counted in sentences that the worker has translated
meanwhile, not in seconds.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

FLOOD = 3  # requests, all at once
SENTENCES = 240  # in each of them
DOCUMENT = "mutation($input: TranslateInput!) { translate(input: $input) { translations { text error { code } } } }"


class House:
    """A web tier and a worker."""

    def __init__(self, url: str, metrics: str) -> None:
        self._address, self._metrics = urlsplit(url), metrics

    def ask(self, texts: list[str], address: str, timeout: float) -> str:
        """OK or the code of the error of a request from this address."""
        assert self._address.hostname
        connection = HTTPConnection(self._address.hostname, self._address.port, timeout=90, source_address=(address, 0))
        body = {"query": DOCUMENT, "variables": {"input": {"texts": texts, "target": "en", "timeout": timeout}}}
        connection.request("POST", "/graphql", json.dumps(body), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        if errors := answer.get("errors"):
            return str(errors[0]["extensions"]["code"])
        errors = [each["error"]["code"] for each in answer["data"]["translate"]["translations"] if each["error"]]
        return str(errors[0]) if errors else "OK"

    def translated(self) -> int:
        """The number of sentences that the worker has translated."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics") as answer:
            found = re.findall(r"^tolk_sentences_total\S* (\S+)$", answer.read().decode(), re.MULTILINE)
        return sum(int(float(each)) for each in found)


@pytest.fixture(scope="module")
def house(new_broker, start_worker, start_web: Callable[..., str], free_port: Callable[[], int]) -> Iterator[House]:
    metrics = f"127.0.0.1:{free_port()}"
    with new_broker() as broker:
        start_worker(broker.url, f"--metrics={metrics}")
        yield House(start_web(broker.url), metrics)


def flood(house: House, texts: list[str], timeout: float) -> str:
    """Sends the texts until they are let in."""
    while (told := house.ask(texts, "127.0.0.2", timeout)) == "OVERLOADED":
        time.sleep(0.1)
    return told


def beside(house: House, flooding: list[Future[str]]) -> tuple[Counter[str], list[int]]:
    """What twenty small callers are told while the flood lasts, and how many sentences were translated meanwhile."""
    outcomes, waits = Counter[str](), []
    while not all(each.done() for each in flooding):
        for number in range(20):
            before = house.translated()
            outcomes[house.ask([f"Il pleut {len(waits)} fois."], f"127.0.0.{number + 10}", 10.0)] += 1
            waits.append(house.translated() - before)
    return outcomes, waits


def test_large_requests_of_one_caller_are_not_everyones_wait(house: House) -> None:
    with ThreadPoolExecutor(FLOOD) as threads:
        flooding = []
        for request in range(FLOOD):
            text = " ".join(f"Le chat numéro {request} {number} dort sur la table." for number in range(SENTENCES // 2))
            flooding.append(threads.submit(flood, house, [text, text.replace("chat", "chien")], 60.0))
        outcomes, waits = beside(house, flooding)
    assert set(outcomes) == {"OK"}
    assert max(waits) < FLOOD * SENTENCES / 4
    assert {each.result() for each in flooding} == {"OK"}


@pytest.mark.parametrize("piece", ["\ufdfa", *(pytest.param(each, marks=pytest.mark.long) for each in ("漢。", "a\n"))])
def test_work_before_the_model_ends_at_its_deadline_and_is_nobody_elses_wait(house: House, piece: str) -> None:
    with ThreadPoolExecutor(16) as threads:
        texts = [(piece * 20_000)[:20_000]] * 5
        flooding = [threads.submit(flood, house, texts, 2.0) for _ in range(16)]
        outcomes, _ = beside(house, flooding)
    assert set(outcomes) == {"OK"}
    assert {each.result() for each in flooding} <= {"OK", "TIMEOUT"}
