"""A steady load of translations whose outcomes are counted: none may be lost, charged twice or answered twice."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

GRACE = 1.0  # seconds after its deadline for which an answer still counts: all processes share one machine
RETRY = 0.1  # seconds until a client whose connection was lost sends its request again
DOCUMENT = "mutation ($input: TranslateInput!) { translate(input: $input) { translations { text error { code } } } }"
ATTEMPTS = 3  # timeouts after which a client gives up
FAILURES = {"OVERLOADED", "TIMEOUT", "UNAVAILABLE"}  # the error codes that a fault may cause

Fate = Literal["answered", "failed", "lost", "wrong"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a request; times are those of the monotonic clock."""

    text: str
    fate: Fate
    detail: str
    sent: float
    ended: float


@dataclass
class Load:
    """Sends `rate` requests a second, each on a connection of its own, inside of the `with`.

    A client whose connection is lost sends its request again under the same idempotency key, as docs/reliability.md
    says it should, unless `retry` is false.
    """

    url: str
    secret: str
    name: str
    rate: float = 20.0
    timeout: float = 8.0
    retry: bool = True
    exact: bool = True  # whether the model is an echo
    outcomes: list[Outcome] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=int(self.rate * ATTEMPTS * self.timeout))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()

    def answered_since(self, moment: float) -> bool:
        """Whether a request that was sent after a moment has been answered."""
        return any(each.fate == "answered" and each.sent > moment for each in list(self.outcomes))

    def _run(self) -> None:
        began = time.monotonic()
        number = 0
        while not self._stop.wait(max(0.0, began + number / self.rate - time.monotonic())):
            future = self._pool.submit(self.send, f"{self.name} {number:06}")
            future.add_done_callback(lambda future: self.outcomes.append(future.result()))
            number += 1

    def send(self, text: str) -> Outcome:
        """Requests the translation of a text until it is answered, or ATTEMPTS requests have timed out."""
        sent = time.monotonic()
        while True:
            until = time.monotonic() + self.timeout
            try:
                fate, detail = self._ask(text)
            except (OSError, http.client.HTTPException) as error:
                fate, detail = "lost", repr(error)
                if self.retry and until < sent + ATTEMPTS * self.timeout:
                    time.sleep(RETRY)
                    continue
            ended = time.monotonic()
            if ended > until + GRACE:
                fate, detail = "lost", f"{detail}, {ended - until:.1f} s after its deadline"
            return Outcome(text, fate, detail, sent, ended)

    def _ask(self, text: str) -> tuple[Fate, str]:
        variables = {"input": {"texts": [text], "target": "en", "timeout": self.timeout, "idempotencyKey": text}}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.secret}", "Connection": "close"}
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=self.timeout + 5)
        try:
            connection.request("POST", "/graphql", json.dumps({"query": DOCUMENT, "variables": variables}), headers)
            response = connection.getresponse()
            return judge(text if self.exact else None, response.status, json.loads(response.read()))
        finally:
            connection.close()


def judge(text: str | None, status: int, answer: Any) -> tuple[Fate, str]:
    """Whether an answer is right: the expected text, or an error of FAILURES; anything else is wrong."""
    if status == 200 and answer.get("data"):
        [translation] = answer["data"]["translate"]["translations"]
        if translation["text"] is not None and text in (None, translation["text"]):
            return "answered", ""
        code = (translation["error"] or {}).get("code", translation["text"])
    else:
        code = answer["errors"][0]["extensions"]["code"]
    return ("failed" if code in FAILURES else "wrong"), f"{status} {code}"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    fault: str
    sent: int
    answered: int
    failed: int
    lost: int
    twice: int
    recovery: float

    @classmethod
    def of(cls, fault: str, load: Load, ended: float, twice: int) -> Row:
        """`ended`: the end of the fault (monotonic clock); `twice`: charges and rows beyond one for each answer."""
        fates = Counter(each.fate for each in load.outcomes)
        return cls(
            fault,
            sent=len(load.outcomes),
            answered=fates["answered"],
            failed=fates["failed"],
            lost=fates["lost"],
            twice=twice + fates["wrong"],
            recovery=recovery(load.outcomes, ended),
        )


def recovery(outcomes: list[Outcome], ended: float) -> float:
    """The seconds from the end of the fault to the first request after which all requests are answered."""
    failed = [each.sent for each in outcomes if each.fate != "answered" and each.sent > ended]
    answered = [each.sent for each in outcomes if each.fate == "answered"]
    good = [sent for sent in answered if sent > max(failed, default=ended)]
    return min(good) - ended if good else float("inf")


def table(rows: list[Row]) -> str:
    lines = [
        "| fault | sent | answered | failed cleanly | lost | seen twice | recovery s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.fault} | {row.sent} | {row.answered} | {row.failed} | {row.lost} | {row.twice} | {row.recovery:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)
