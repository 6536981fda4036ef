"""The request that the web tier sends to a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, get_args

from tasks.contract.errors import Code, TolkError
from tasks.contract.fields import VERSION, mapping, plain, strings, value, versioned
from tasks.contract.names import Priority


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Options of decoding.

    `beam` is the beam's width, `nbest` the number of hypotheses to return (at most `beam`), `length_penalty` the
    exponent of the length by which the beam ranks hypotheses. `unset` names those of them that nobody has chosen: the
    worker takes what the model's files say instead, and one of an earlier release the value that is sent.
    """

    beam: int = 1
    nbest: int = 1
    length_penalty: float = 1.0
    unset: tuple[str, ...] = ()

    @classmethod
    def decode(cls, payload: object) -> RequestOptions:
        data = mapping(payload, "options")
        options = cls(
            beam=value(data, "beam", int),
            nbest=value(data, "nbest", int),
            length_penalty=value(data, "length_penalty", float),
            unset=strings(data, "unset") if "unset" in data else (),  # web tiers of earlier releases do not send it
        )
        if not 1 <= options.nbest <= options.beam <= 64:
            raise TolkError(Code.BAD_INPUT, "options: 1 <= nbest <= beam <= 64 does not hold.")
        return options


class Lines(StrEnum):
    """What becomes of the line breaks in a text: each ends a sentence, or the lines of a paragraph are joined."""

    KEEP = "keep"
    JOIN = "join"


class Holds(StrEnum):
    """What of a text comes through as it is, as text.holds.Profile has it."""

    AUTO = "auto"
    OFF = "off"
    PRINTF = "printf"
    QT = "qt"
    SHELL = "shell"
    TEX = "tex"
    WIKI = "wiki"
    BBCODE = "bbcode"


HONOURED = ("lines", "holds", "preserve")  # the options that workers of this release know


@dataclass(frozen=True, slots=True)
class TranslateRequest:
    """All the texts of one request, in one message. `deadline` is in Unix seconds.

    `caller` names whose share of the workers the request takes (app.accounts.auth.caller); None from earlier releases.
    Earlier releases do not know `lines`, and keep them; nor `holds` and `preserve`, phrases that are holds, too.
    """

    texts: tuple[str, ...]
    target: str
    model: str
    deadline: float
    source: str | None = None
    version: str | None = None
    options: RequestOptions = field(default_factory=RequestOptions)
    priority: Priority = "interactive"
    principal: str | None = None
    caller: str | None = None
    lines: Lines = Lines.KEEP
    holds: Holds = Holds.AUTO
    preserve: tuple[str, ...] = ()

    def encode(self) -> dict[str, Any]:
        return {"v": VERSION, **plain(self)}

    @classmethod
    def decode(cls, payload: object) -> TranslateRequest:
        """Raises TolkError(BAD_INPUT), which names the field that does not fit."""
        data = versioned(payload, "request")
        priority = value(data, "priority", str)
        if priority not in get_args(Priority):
            raise TolkError(Code.BAD_INPUT, f"priority: {priority!r} is neither interactive nor bulk.")
        lines = value(data, "lines", str | None) or Lines.KEEP
        if lines not in set(Lines):
            raise TolkError(Code.BAD_INPUT, f"lines: {lines!r} is neither keep nor join.")
        holds = value(data, "holds", str | None) or Holds.AUTO
        if holds not in set(Holds):
            raise TolkError(Code.BAD_INPUT, f"holds: {holds!r} is none of {', '.join(Holds)}.")
        return cls(
            texts=strings(data, "texts"),
            source=value(data, "source", str | None),
            target=value(data, "target", str),
            model=value(data, "model", str),
            version=value(data, "version", str | None),
            options=RequestOptions.decode(data.get("options")),
            priority=priority,
            deadline=value(data, "deadline", float),
            principal=value(data, "principal", str | None),
            caller=value(data, "caller", str | None),
            lines=Lines(lines),
            holds=Holds(holds),
            preserve=strings(data, "preserve") if "preserve" in data else (),
        )
