"""What became of the texts of a request: a result for each, and where that comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.translation.parts import Division
from tasks.contract.fields import array, mapping, plain, strings, value
from tasks.contract.reply import TextResult, TranslateReply


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a text's translation comes from: the language of the text, the model and its version, and the languages in
    between. All are None for a text that no model was asked for.

    `confidence` is the probability of the language if it was detected, else None. `from_neighbours` says whether the
    texts beside it decided.
    """

    source: str | None = None
    model: str | None = None
    version: str | None = None
    via: tuple[str, ...] = ()
    confidence: float | None = None
    from_neighbours: bool = False

    @classmethod
    def decode(cls, payload: object) -> Origin:
        data = mapping(payload, "origin")
        return cls(
            source=value(data, "source", str | None),
            model=value(data, "model", str | None),
            version=value(data, "version", str | None),
            via=strings(data, "via"),
            confidence=value(data, "confidence", float | None),
            from_neighbours=value(data, "from_neighbours", bool),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result and an origin for each text, in order.

    For texts that took several ways, `model` and `version` name those of all, with commas, and `via` is empty. `source`
    is the language of all texts; None if they are in several, or in none.
    """

    source: str | None
    model: str
    version: str | None
    via: tuple[str, ...]
    results: tuple[TextResult, ...]
    origins: tuple[Origin, ...]

    @classmethod
    def of(cls, division: Division, replies: Sequence[TranslateReply]) -> Outcome:
        """The outcome of a request, from one reply for each part of it."""
        if len(replies) == 1 and not division.detected:  # as nearly always
            [part], [reply] = division.parts, replies
            origin = Origin(part.way[0].pair.source, reply.model, reply.version, reply.via)
            origins = (origin,) * len(reply.results)
            return cls(origin.source, reply.model, reply.version, reply.via, reply.results, origins)
        found = {position: (result, origin_at(division, position)) for position, result in division.settled.items()}
        for part, reply in zip(division.parts, replies, strict=True):
            for position, result in zip(part.positions, reply.results, strict=True):
                found[position] = result, origin_at(division, position, part.way[0].pair.source, reply)
        origins = tuple(found[each][1] for each in sorted(found))
        sources = _distinct(
            [origin.source for origin in origins] or [part.way[0].pair.source for part in division.parts]
        )
        ways = {reply.via for reply in replies}
        return cls(
            source=sources[0] if len(sources) == 1 else None,
            model=", ".join(_distinct(reply.model for reply in replies)),
            version=", ".join(_distinct(reply.version for reply in replies)) or None,
            via=ways.pop() if len(ways) == 1 else (),
            results=tuple(found[each][0] for each in sorted(found)),
            origins=origins,
        )

    def renewed(self, positions: Sequence[int], later: Outcome) -> Outcome:
        """The outcome with the results and origins at these positions replaced by those of a later one."""
        results, origins = list(self.results), list(self.origins)
        for at, result, origin in zip(positions, later.results, later.origins, strict=True):
            results[at], origins[at] = result, origin
        return replace(self, results=tuple(results), origins=tuple(origins))

    def encode(self) -> dict[str, Any]:
        """The outcome in the types that JSON has. Earlier releases read it as the reply of a worker."""
        reply = TranslateReply(self.model, self.version, self.via, results=self.results)
        return {**reply.encode(), "source": self.source, "origins": plain(self.origins)}

    @classmethod
    def decode(cls, payload: Any, division: Division) -> Outcome:
        """Raises TolkError(BAD_INPUT), which names the field that does not fit. What an earlier release has stored does
        not say where it comes from: all texts were in the language of `division`."""
        reply = TranslateReply.decode(payload)
        if "origins" in payload:
            source = value(payload, "source", str | None)
            origins = tuple(Origin.decode(each) for each in array(payload, "origins"))
        else:
            source = division.parts[0].way[0].pair.source if division.parts else None
            origins = (Origin(source, reply.model, reply.version, reply.via),) * len(reply.results)
        return cls(source, reply.model, reply.version, reply.via, reply.results, origins)


def origin_at(
    division: Division, position: int, source: str | None = None, reply: TranslateReply | None = None
) -> Origin:
    """Where the result of the text at a position comes from, as far as its division and a reply tell."""
    detected = division.detected.get(position)
    best = detected.best if detected else None
    return Origin(
        source=source or (best.language if best else None),
        model=reply.model if reply else None,
        version=reply.version if reply else None,
        via=reply.via if reply else (),
        confidence=(best.probability if best else 0.0) if detected else None,
        from_neighbours=detected is not None and detected.from_neighbours,
    )


def _distinct(values: Iterable[str | None]) -> list[str]:
    return [each for each in dict.fromkeys(values) if each is not None]
