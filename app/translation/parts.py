"""Divides the texts of a request into parts. The texts of a part are in one language, and one way of models translates
them. Where the request does not say which language its texts are in, each text is looked at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import Failure, TextResult
from tasks.registry.ways import Leg, Registry
from text.characters import refusal
from text.detection import Candidate, Detection, Detector
from text.languages import base, canonical

UNSURE = 0.5  # the probability of a language below which the caller's `assume` counts

Way = tuple[Leg, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """The texts that one way translates, by their positions in the request."""

    way: Way
    positions: Sequence[int]


@dataclass(frozen=True, slots=True)
class Division:
    """The parts of a request into `target`, as it was understood. By a text's position, `settled` are the results of
    those that no model is asked for, and `detected` is what was found in those that were looked at."""

    target: str
    parts: Sequence[Part]
    settled: Mapping[int, TextResult] = field(default_factory=dict)
    detected: Mapping[int, Detection] = field(default_factory=dict)

    def only(self, positions: Collection[int]) -> Division:
        """What is left of the division if the request has only the texts at these positions."""
        kept = [Part(part.way, [at for at in part.positions if at in positions]) for part in self.parts]
        settled = {at: result for at, result in self.settled.items() if at in positions}
        return Division(self.target, [part for part in kept if part.positions], settled, self.detected)


def divide(
    texts: Sequence[str],
    registry: Registry,
    detector: Detector,
    *,
    source: str | None,
    target: str,
    model: str | None,
    assume: str | None = None,
) -> Division:
    """Divides texts by the languages that they are in: all in `source` or, if that is None and there are several ways
    to `target`, each in the one that is detected. `assume` is the language of texts in which none is, or none that is
    served.

    Raises TolkError(UNKNOWN_MODEL), which names alternatives, if no way leads from a given language to the target.
    """
    if source is None:
        direct, indirect = registry.sources(target, model)
        if len(direct) + len(indirect) > 1:
            if assume is not None:
                registry.resolve(assume, target, model)
            return _by_language(texts, registry, detector.detect(texts, direct or indirect), target, model, assume)
        [source] = (*direct, *indirect)
    way = registry.resolve(source, target, model)
    return Division(way[-1].pair.target, [Part(way, range(len(texts)))])


def _by_language(
    texts: Sequence[str],
    registry: Registry,
    detected: Sequence[Detection],
    target: str,
    model: str | None,
    assume: str | None,
) -> Division:
    ways: dict[str, Way] = {}
    positions: dict[str, list[int]] = {}
    settled: dict[int, TextResult] = {}
    for position, (text, found) in enumerate(zip(texts, detected, strict=True)):
        if found.best is None or (found.unserved and base(found.best.language) == base(target)):
            settled[position] = _as_it_is(text)
        else:
            language = assume if assume and _is_unsure(found.best, found) else found.best.language
            try:
                way = registry.resolve(language, target, model)
            except TolkError as error:
                settled[position] = TextResult(error=_unsupported(language, error))
            else:
                ways[way[0].pair.source] = way
                positions.setdefault(way[0].pair.source, []).append(position)
    parts = [Part(ways[each], positions[each]) for each in ways]
    understood = parts[0].way[-1].pair.target if parts else canonical(target)
    return Division(understood, parts, settled, dict(enumerate(detected)))


def _as_it_is(text: str) -> TextResult:
    """The result of a text that has nothing to translate. What no model takes is refused here, too."""
    reason = refusal(text)
    return TextResult(text) if reason is None else TextResult(error=Failure(Code.BAD_INPUT, reason))


def _is_unsure(best: Candidate, found: Detection) -> bool:
    return found.unserved is not None or best.probability < UNSURE


def _unsupported(language: str, error: TolkError) -> Failure:
    found = "The text is in no script that a served language has" if language == "und" else f"The text is in {language}"
    return Failure(Code.UNSUPPORTED_SOURCE, f"{found}. {error.message} If it is in another language, set source.")
