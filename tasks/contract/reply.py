"""The reply: what became of a request, and of each of its texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from tasks.contract.errors import Code, TolkError
from tasks.contract.fields import VERSION, array, mapping, span, strings, value, versioned


class Flag(StrEnum):
    """What a reader of a translation should know about it."""

    REPETITION = "REPETITION"  # the model ran away repeating itself; the text is a second try, or was shortened
    UNKNOWN_TOKENS = "UNKNOWN_TOKENS"  # the text holds characters the model has no pieces for
    SPLIT = "SPLIT"  # a sentence was longer than the model's limit and was translated in parts
    TRUNCATED = "TRUNCATED"  # the translation stopped at the length limit


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it crosses the wire; `retry_after` (seconds) only ever stands on a request's failure."""

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
    """Another translation of the same text, with its score."""

    text: str
    score: float

    @classmethod
    def decode(cls, payload: object) -> AlternativeResult:
        data = mapping(payload, "alternative")
        return cls(text=value(data, "text", str), score=value(data, "score", float))


@dataclass(frozen=True, slots=True)
class SentenceResult:
    """What the model saw of a text and made of it: spans (start, end) of the text and of its translation.

    They count Unicode code points. `score`: mean log-probability per target token.
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
    """One text's outcome: a text, or an error. `score`: mean log-probability per target token, null for blank texts."""

    text: str | None = None
    score: float | None = None
    alternatives: tuple[AlternativeResult, ...] = ()
    flags: tuple[Flag, ...] = ()
    sentences: tuple[SentenceResult, ...] = ()
    error: Failure | None = None

    @classmethod
    def decode(cls, payload: object) -> TextResult:
        data = {"sentences": [], **mapping(payload, "result")}  # a worker of an earlier release sends none
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
    """Seconds that a request spent in the queue, waiting for a batch, in the encoder, in the decoder, and, before those
    three, until its model was in memory. They are known of a request that failed, too, as far as it came.
    """

    queue: float = 0.0
    wait: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class TranslateReply:
    """What a task returns, for every error of the domain too. `results` has one entry per text, in order, or none."""

    model: str
    version: str | None = None
    via: tuple[str, ...] = ()
    worker: str = ""
    results: tuple[TextResult, ...] = ()
    timings: RequestTimings = field(default_factory=RequestTimings)
    error: Failure | None = None

    def encode(self) -> dict[str, Any]:
        return {"v": VERSION, **asdict(self)}

    @classmethod
    def decode(cls, payload: object) -> TranslateReply:
        """Raises TolkError(BAD_INPUT) that names the field which does not fit."""
        data = versioned(payload, "reply")
        timings = {"load": 0.0, **mapping(data.get("timings"), "timings")}  # a worker of an earlier release says none
        return cls(
            model=value(data, "model", str),
            version=value(data, "version", str | None),
            via=strings(data, "via"),
            worker=value(data, "worker", str),
            results=tuple(TextResult.decode(item) for item in array(data, "results")),
            timings=RequestTimings(*(value(timings, name, float) for name in RequestTimings.__dataclass_fields__)),
            error=Failure.decode(data.get("error")),
        )


def _code(value: str) -> Code:
    """A code that a newer release knows and this one does not is still an error: INTERNAL."""
    return Code(value) if value in set(Code) else Code.INTERNAL


def _flags(data: Mapping[str, Any]) -> tuple[Flag, ...]:
    """Without those that only a newer release knows."""
    known = set(Flag)
    return tuple(Flag(flag) for flag in strings(data, "flags") if flag in known)
