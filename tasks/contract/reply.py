"""The reply of a worker: the outcome of a request and of each of its texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from tasks.contract.errors import Code, TolkError
from tasks.contract.fields import VERSION, array, mapping, plain, span, strings, value, versioned

REPLY_BYTES = 8 * 2**20 - 64 * 1024  # what the broker takes in a message, less what is around the results
FAILURE_BYTES = 512  # more than a failed result takes
TOO_LONG = (
    "The translations are too long to be sent back together. Send this text in a request of its own, or in parts."
)


class Flag(StrEnum):
    """A warning about a translation for its reader."""

    REPETITION = "REPETITION"  # the model repeated itself endlessly; the text is a second attempt, or was shortened
    UNKNOWN_TOKENS = "UNKNOWN_TOKENS"  # the text has characters that are not in the model's vocabulary
    SPLIT = "SPLIT"  # a sentence was translated in parts: it was too long, or lost what had to be kept
    TRUNCATED = "TRUNCATED"  # the translation stopped at the length limit
    NUMBER_MISMATCH = "NUMBER_MISMATCH"  # the translation lacks a number of the text, or has one that the text has not
    SOURCE_KEPT = "SOURCE_KEPT"  # a sentence is not translated, because that would have lost what had to be kept


@dataclass(frozen=True, slots=True)
class Failure:
    """A TolkError on the wire. Only the failure of a whole request has a `retry_after` (seconds)."""

    code: Code
    message: str
    retry_after: float | None = None

    def error(self) -> TolkError:
        return TolkError(self.code, self.message, self.retry_after)

    @classmethod
    def decode(cls, payload: object) -> Failure | None:
        if payload is None:
            return None
        data = mapping(payload, "error")
        return cls(
            code=_code(value(data, "code", str)),
            message=value(data, "message", str),
            retry_after=value(data, "retry_after", float | None),
        )


@dataclass(frozen=True, slots=True)
class AlternativeResult:
    """Another translation of the same text; `score` is its mean log-probability per target token."""

    text: str
    score: float

    @classmethod
    def decode(cls, payload: object) -> AlternativeResult:
        data = mapping(payload, "alternative")
        return cls(text=value(data, "text", str), score=value(data, "score", float))


@dataclass(frozen=True, slots=True)
class SentenceResult:
    """A sentence of a text: `source` is its span in the text, `target` the span of its translation.

    A span is (start, end) in Unicode code points. `score` is the mean log-probability per target token.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    score: float
    flags: tuple[Flag, ...] = ()

    @classmethod
    def decode(cls, payload: object) -> SentenceResult:
        data = mapping(payload, "sentence")
        return cls(
            source=span(data, "source"),
            target=span(data, "target"),
            score=value(data, "score", float),
            flags=_flags(data),
        )


@dataclass(frozen=True, slots=True)
class TextResult:
    """The outcome of one text: a translation in `text`, or an `error`.

    `score` is the mean log-probability per target token; None for a blank text and for an error.
    """

    text: str | None = None
    score: float | None = None
    alternatives: tuple[AlternativeResult, ...] = ()
    flags: tuple[Flag, ...] = ()
    sentences: tuple[SentenceResult, ...] = ()
    error: Failure | None = None

    @classmethod
    def decode(cls, payload: object) -> TextResult:
        data = {"sentences": [], **mapping(payload, "result")}  # workers of earlier releases send no sentences
        return cls(
            text=value(data, "text", str | None),
            score=value(data, "score", float | None),
            alternatives=tuple(AlternativeResult.decode(item) for item in array(data, "alternatives")),
            flags=_flags(data),
            sentences=tuple(SentenceResult.decode(item) for item in array(data, "sentences")),
            error=Failure.decode(data.get("error")),
        )


@dataclass(frozen=True, slots=True)
class RequestTimings:
    """Seconds that a request spent in each stage.

    In order: `queue`, in the broker's queue; `load`, until its model was in memory; `wait`, until it had a place in a
    batch; `prefill`, in the encoder; `decode`, in the decoder. A stage that a failed request did not reach is 0.
    """

    queue: float = 0.0
    wait: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class TranslateReply:
    """The return value of a task, also if the request failed.

    `results` has one entry per text, in the order of the request; it is empty if the whole request has an `error`.
    `tokens` is what the request took of its worker, in source tokens x hypotheses; None if that is unknown. `honoured`
    names the options of the request that its worker knows; those of earlier releases name none.
    """

    model: str
    version: str | None = None
    via: tuple[str, ...] = ()
    worker: str = ""
    results: tuple[TextResult, ...] = ()
    timings: RequestTimings = field(default_factory=RequestTimings)
    error: Failure | None = None
    tokens: float | None = None
    honoured: tuple[str, ...] = ()

    def encode(self) -> dict[str, Any]:
        return {"v": VERSION, **plain(self)}

    def fitting(self, room: int = REPLY_BYTES) -> TranslateReply:
        """The reply with a failure in place of each result that no longer fits into a message of `room` bytes. The
        first results have the room first."""
        if sum(map(_most_bytes, self.results)) <= room:  # as nearly always
            return self
        results = []
        for result in self.results:
            size = len(json.dumps(plain(result))) + len(", ")
            fits = size <= room
            results.append(result if fits else TextResult(error=Failure(Code.BAD_INPUT, TOO_LONG)))
            room -= size if fits else FAILURE_BYTES
        return replace(self, results=tuple(results))

    @classmethod
    def decode(cls, payload: object) -> TranslateReply:
        """Raises TolkError(BAD_INPUT), which names the field that does not fit."""
        data = versioned(payload, "reply")
        timings = {"load": 0.0, **mapping(data.get("timings"), "timings")}  # workers of earlier releases send no load
        return cls(
            model=value(data, "model", str),
            version=value(data, "version", str | None),
            via=strings(data, "via"),
            worker=value(data, "worker", str),
            results=tuple(TextResult.decode(item) for item in array(data, "results")),
            timings=RequestTimings(*(value(timings, name, float) for name in RequestTimings.__dataclass_fields__)),
            error=Failure.decode(data.get("error")),
            tokens=value(data, "tokens", float | None),
            honoured=strings(data, "honoured") if "honoured" in data else (),
        )


def _most_bytes(result: TextResult) -> int:
    """At least as many bytes as the result takes in JSON."""
    texts = [result.text or "", *(each.text for each in result.alternatives)]
    return 12 * sum(map(len, texts)) + 256 * (1 + len(result.sentences) + len(result.alternatives))


def _code(value: str) -> Code:
    """The code, or INTERNAL for a code that only a newer release knows."""
    return Code(value) if value in set(Code) else Code.INTERNAL


def _flags(data: Mapping[str, Any]) -> tuple[Flag, ...]:
    """The flags that this release knows; a newer release may send others."""
    if not (flags := strings(data, "flags")):  # as nearly always
        return ()
    known = set(Flag)
    return tuple(Flag(flag) for flag in flags if flag in known)
