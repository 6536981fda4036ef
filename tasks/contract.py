"""What crosses the queue: the request, the reply, the names and the codes. Standard library only.

Both tiers import this module and nothing else of each other. A message is a frozen dataclass that encodes itself
into JSON-ready builtins and decodes itself from them; whatever does not fit raises one error, `TolkError` with
`BAD_INPUT`. Unknown fields of a message of the same version are ignored, so that old and new run side by side
while a release rolls out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from sys import float_info
from types import UnionType
from typing import Any, Literal, get_args
from zlib import crc32

VERSION = 1
TASK = "tolk.translate"
EXCHANGE = "tolk.translate"
DEAD_LETTERS = "tolk.dead-letters"  # the exchange; the queue behind it is `tolk.dead-letters.kept`
DELIVERIES = 3  # of a message, at most, before it is a dead letter: the last one by itself
STATUS = "tolk_status"  # the remote-control command that asks a worker for its WorkerStatus
PUBLISHED = "tolk-published"  # the message header that says when it was published, in Unix seconds
ON_DEMAND = "on-demand"  # what the routes of all models on demand, and their one queue of suspects, are called after
SHARED = tuple(f"{ON_DEMAND}.{shard}" for shard in range(16))  # these routes
MESSAGE_BYTES = 4 * 2**20  # of a request's message, at most: the web tier lets in what makes no longer one

Priority = Literal["interactive", "bulk"]


class Code(StrEnum):
    """Why a text or a request has no translation."""

    BAD_INPUT = "BAD_INPUT"
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    RATE_LIMITED = "RATE_LIMITED"
    OVERLOADED = "OVERLOADED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class Flag(StrEnum):
    """What a reader of a translation should know about it."""

    REPETITION = "REPETITION"  # the model ran away repeating itself; the text is a second try, or was shortened
    UNKNOWN_TOKENS = "UNKNOWN_TOKENS"  # the text holds characters the model has no pieces for
    SPLIT = "SPLIT"  # a sentence was longer than the model's limit and was translated in parts
    TRUNCATED = "TRUNCATED"  # the translation stopped at the length limit


class TolkError(Exception):
    """An error of the domain: a code, a message that tells the user what to do, seconds until a retry makes sense."""

    def __init__(self, code: Code, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after


def shared_route(model: str) -> str:
    """The route of a model on demand, one of SHARED: always the same one, so that it has a worker of its own choice."""
    return SHARED[crc32(model.encode()) % len(SHARED)]


def queue_name(route: str, priority: Priority) -> str:
    """The queue that holds a route's work: `tolk.translate.fr-en.interactive`, `tolk.translate.on-demand.7.bulk`."""
    return f"{EXCHANGE}.{route}.{priority}"


def queue_names(route: str) -> list[str]:
    """Interactive work, then bulk."""
    return [queue_name(route, priority) for priority in get_args(Priority)]


def suspects_name(route: str) -> str:
    """The queue of requests that came back twice: `tolk.suspects.fr-en`, and one for all models on demand."""
    return f"tolk.suspects.{route.partition('.')[0]}"


@dataclass(frozen=True, slots=True)
class Options:
    """Decoding: beam width, how many alternatives (at most `beam`), exponent of the length in the beam's ranking."""

    beam: int = 1
    nbest: int = 1
    length_penalty: float = 1.0

    @classmethod
    def decode(cls, payload: object) -> Options:
        data = _mapping(payload, "options")
        options = cls(
            beam=_get(data, "beam", int),
            nbest=_get(data, "nbest", int),
            length_penalty=_get(data, "length_penalty", float),
        )
        if not 1 <= options.nbest <= options.beam <= 64:
            raise TolkError(Code.BAD_INPUT, "options: 1 <= nbest <= beam <= 64 does not hold.")
        return options


@dataclass(frozen=True, slots=True)
class TranslateRequest:
    """One mutation, one message: all its texts. `deadline` is in Unix seconds."""

    texts: tuple[str, ...]
    target: str
    model: str
    deadline: float
    source: str | None = None
    version: str | None = None
    options: Options = field(default_factory=Options)
    priority: Priority = "interactive"
    principal: str | None = None

    def encode(self) -> dict[str, Any]:
        return {"v": VERSION, **asdict(self), "texts": list(self.texts)}

    @classmethod
    def decode(cls, payload: object) -> TranslateRequest:
        """Raises TolkError(BAD_INPUT) that names the field which does not fit."""
        data = _versioned(payload, "request")
        priority = _get(data, "priority", str)
        if priority not in get_args(Priority):
            raise TolkError(Code.BAD_INPUT, f"priority: {priority!r} is neither interactive nor bulk.")
        return cls(
            texts=_strings(data, "texts"),
            source=_get(data, "source", str | None),
            target=_get(data, "target", str),
            model=_get(data, "model", str),
            version=_get(data, "version", str | None),
            options=Options.decode(data.get("options")),
            priority=priority,
            deadline=_get(data, "deadline", float),
            principal=_get(data, "principal", str | None),
        )


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
        data = _mapping(payload, "error")
        return cls(
            code=_code(_get(data, "code", str)),
            message=_get(data, "message", str),
            retry_after=_get(data, "retry_after", float | None),
        )


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another translation of the same text, with its score."""

    text: str
    score: float

    @classmethod
    def decode(cls, payload: object) -> Alternative:
        data = _mapping(payload, "alternative")
        return cls(text=_get(data, "text", str), score=_get(data, "score", float))


@dataclass(frozen=True, slots=True)
class Sentence:
    """What the model saw of a text and made of it: spans (start, end) of the text and of its translation.

    They count Unicode code points. `score`: mean log-probability per target token.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    score: float
    flags: tuple[Flag, ...] = ()

    @classmethod
    def decode(cls, payload: object) -> Sentence:
        data = _mapping(payload, "sentence")
        return cls(
            source=_span(data, "source"),
            target=_span(data, "target"),
            score=_get(data, "score", float),
            flags=_flags(data),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One text's outcome: a text, or an error. `score`: mean log-probability per target token, null for blank texts."""

    text: str | None = None
    score: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    flags: tuple[Flag, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    error: Failure | None = None

    @classmethod
    def decode(cls, payload: object) -> Result:
        data = {"sentences": [], **_mapping(payload, "result")}  # a worker of an earlier release sends none
        return cls(
            text=_get(data, "text", str | None),
            score=_get(data, "score", float | None),
            alternatives=tuple(Alternative.decode(item) for item in _list(data, "alternatives")),
            flags=_flags(data),
            sentences=tuple(Sentence.decode(item) for item in _list(data, "sentences")),
            error=Failure.decode(data.get("error")),
        )


@dataclass(frozen=True, slots=True)
class Timings:
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
    results: tuple[Result, ...] = ()
    timings: Timings = field(default_factory=Timings)
    error: Failure | None = None

    def encode(self) -> dict[str, Any]:
        return {"v": VERSION, **asdict(self)}

    @classmethod
    def decode(cls, payload: object) -> TranslateReply:
        """Raises TolkError(BAD_INPUT) that names the field which does not fit."""
        data = _versioned(payload, "reply")
        timings = {"load": 0.0, **_mapping(data.get("timings"), "timings")}  # a worker of an earlier release says none
        return cls(
            model=_get(data, "model", str),
            version=_get(data, "version", str | None),
            via=_strings(data, "via"),
            worker=_get(data, "worker", str),
            results=tuple(Result.decode(item) for item in _list(data, "results")),
            timings=Timings(*(_get(timings, name, float) for name in Timings.__dataclass_fields__)),
            error=Failure.decode(data.get("error")),
        )


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in a worker's memory, of which it takes so many bytes; a `warm` one stays there."""

    name: str
    version: str
    device: str
    bytes: int = 0
    warm: bool = True

    @classmethod
    def decode(cls, payload: object) -> LoadedModel:
        data = {"bytes": 0, "warm": True, **_mapping(payload, "model")}  # a worker of an earlier release tells neither
        return cls(
            name=_get(data, "name", str),
            version=_get(data, "version", str),
            device=_get(data, "device", str),
            bytes=_get(data, "bytes", int),
            warm=_get(data, "warm", bool),
        )


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker at this moment: requests that it holds, and has answered since it started; `uptime` in seconds.

    Since then, too: requests that found their model in memory; models that were loaded, and that went to make room.
    `memory` is what it has of the machine's, in bytes, None where it is of a release that does not say so; `gpu_memory`
    what it holds of its GPU's, None where it uses none.
    """

    models: tuple[LoadedModel, ...]
    active: int
    processed: int
    uptime: float
    hits: int = 0
    loads: int = 0
    evictions: int = 0
    memory: int | None = None
    gpu_memory: int | None = None

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def decode(cls, payload: object) -> WorkerStatus:
        """Raises TolkError(BAD_INPUT) that names the field which does not fit."""
        data = {"hits": 0, "loads": 0, "evictions": 0, **_mapping(payload, "worker")}  # which an earlier release lacks
        return cls(
            models=tuple(LoadedModel.decode(item) for item in _list(data, "models")),
            active=_get(data, "active", int),
            processed=_get(data, "processed", int),
            uptime=_get(data, "uptime", float),
            hits=_get(data, "hits", int),
            loads=_get(data, "loads", int),
            evictions=_get(data, "evictions", int),
            memory=_get(data, "memory", int | None),
            gpu_memory=_get(data, "gpu_memory", int | None),
        )


def defect(message: Any) -> str | None:
    """Why no worker can take a message, as kombu received it, for our task; None where one can. It quotes no texts."""
    size = len(body(message))
    if size > MESSAGE_BYTES:
        return f"its {size} bytes are more than {MESSAGE_BYTES}"
    if message.headers.get("compression"):
        return "it is compressed"
    if message.content_type != "application/json":
        return f"content type {_quoted(message.content_type)} is not application/json"
    if message.content_encoding != "utf-8":
        return f"content encoding {_quoted(message.content_encoding)} is not utf-8"
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001 - kombu's DecodeError, a RecursionError, and whatever else a body can cause
        return "its body is not JSON"
    if message.headers.get("task") != TASK:
        return f"there is no task {_quoted(message.headers.get('task'))}"
    if not isinstance(message.headers.get("id"), str):
        return "it has no id"
    match payload:
        case [[_], {}, {}] if not payload[1] and not any(payload[2].values()):
            return None
    return "its body is no call of the task"


def body(message: Any) -> bytes:
    """A message's body as it was published: py-amqp decodes it where the message names an encoding that it knows."""
    return message.body.encode(message.content_encoding) if isinstance(message.body, str) else bytes(message.body)


def again(message: Any, now: float) -> dict[str, Any]:
    """How kombu publishes a message that was received once more, as a new one: what is left of its time at `now`
    (Unix seconds), and nothing of what the broker wrote on it."""
    published, left = message.headers.get(PUBLISHED), message.properties.get("expiration")
    if left is not None:
        left = max(0.0, int(left) / 1000 - (now - published if isinstance(published, int | float) else 0.0))
    return {
        "body": body(message),
        "content_type": message.content_type or "application/octet-stream",
        "content_encoding": message.content_encoding,
        "headers": {name: value for name, value in message.headers.items() if not name.startswith("x-")},
        "correlation_id": message.properties.get("correlation_id"),
        "reply_to": message.properties.get("reply_to"),
        "expiration": left,
    }


def _quoted(value: object) -> str:
    """A name that somebody else chose: short, and without control characters."""
    return repr(value if value is None else str(value)[:60])


def _code(value: str) -> Code:
    """A code that a newer release knows and this one does not is still an error: INTERNAL."""
    return Code(value) if value in set(Code) else Code.INTERNAL


def _versioned(payload: object, what: str) -> Mapping[str, Any]:
    data = _mapping(payload, what)
    if data.get("v") != VERSION:
        raise TolkError(
            Code.BAD_INPUT,
            f"{what}: version {data.get('v')!r} is not {VERSION}, the one this release speaks.",
        )
    return data


def _mapping(payload: object, what: str) -> Mapping[str, Any]:
    if not isinstance(payload, Mapping):
        raise TolkError(Code.BAD_INPUT, f"{what}: an object was expected, not {type(payload).__name__}.")
    return payload


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    value: list[Any] = _get(data, name, list)
    return value


def _strings(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    items = _list(data, name)
    if not all(isinstance(item, str) for item in items):
        raise TolkError(Code.BAD_INPUT, f"{name}: a list of strings was expected.")
    return tuple(items)


def _flags(data: Mapping[str, Any]) -> tuple[Flag, ...]:
    """Without those that only a newer release knows."""
    known = set(Flag)
    return tuple(Flag(flag) for flag in _strings(data, "flags") if flag in known)


def _span(data: Mapping[str, Any], name: str) -> tuple[int, int]:
    match _list(data, name):
        case [int(start), int(end)] if 0 <= start <= end:
            return start, end
    raise TolkError(Code.BAD_INPUT, f"{name}: a start and an end were expected.")


def _get(data: Mapping[str, Any], name: str, kind: type | UnionType) -> Any:
    """The field `name`, of that kind; a whole number counts as a float, a bool never as a number, nor does infinity."""
    value: Any = data.get(name)
    kinds = get_args(kind) or (kind,)
    if float in kinds and type(value) in (int, float):
        if abs(value) <= float_info.max:
            return float(value)
        raise TolkError(Code.BAD_INPUT, f"{name}: a finite number was expected.")
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise TolkError(Code.BAD_INPUT, f"{name}: {wanted} was expected, not {type(value).__name__}.")
    return value
