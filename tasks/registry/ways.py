"""Which models lead from one language to another: directly, or through a language in between."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

from tasks.contract.errors import Code, TolkError
from tasks.contract.names import SHARED
from tasks.registry.entry import Entry, Pair

PIVOT = "en"  # the language to go through before any other
SHOWN = 12  # models, pairs or languages that an error names, at most


class Leg(NamedTuple):
    """A model, and the direction of its that is taken: a whole way, or one of the two through another language."""

    model: Entry
    pair: Pair


class Way(NamedTuple):
    """From a language to another: by each of `models`, or through the languages of `via`, a model for each leg."""

    source: str
    target: str
    models: tuple[str, ...]
    via: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    """The models on offer, in the order of the file."""

    models: Mapping[str, Entry]

    @cached_property
    def routes(self) -> tuple[str, ...]:
        """The routes that lead to them; all of the shared ones as soon as there is a model on demand."""
        warm = tuple(name for name, model in self.models.items() if model.warm)
        return warm if len(warm) == len(self.models) else warm + SHARED

    def resolve(self, source: str | None, target: str, model: str | None) -> tuple[Leg, ...]:
        """The way for a request: one leg, or two where no model goes directly, the source is said, and no model.

        Two go through PIVOT or, where it does not lead there, through the first language of the file that does; each
        leg is by the first model that fits.

        Raises TolkError: UNKNOWN_MODEL for a model or pair that is not on offer, with what is;
        BAD_INPUT where `source` was left out and more than one direction leads to the target.
        """
        if model is not None and model not in self.models:
            raise self.unknown(model)
        candidates = self._legs if model is None else _by_pair([self.models[model]])
        fitting = candidates.get((source, target), [])
        if not fitting and model is None and (legs := self._pivot(source, target)):
            return legs
        if not fitting:
            wanted = f"from {source} to {target}" if source is not None else f"to {target}"
            pairs = [(start, end) for start, end in candidates if start is not None]
            pairs.sort(key=lambda pair: (pair[0] != source and pair[1] != target, pair))
            offered = _some([f"{start}-{end}" for start, end in pairs])
            named = f"Model {model!r}" if model is not None else "No model"
            verb = "does not translate" if model is not None else "translates"
            raise TolkError(Code.UNKNOWN_MODEL, f"{named} {verb} {wanted}. Pairs: {offered}.")
        near = {leg.pair.source: leg.model.name for leg in reversed(fitting)}
        if source is None and len(near) > 1:
            sources = _some([f"{start} ({name})" for start, name in sorted(near.items())])
            far = {start for start, end in self._legs if start is not None and end in near} - near.keys() - {target}
            through = f" Through another language: {_some(sorted(far))}." if far else ""
            raise TolkError(
                Code.BAD_INPUT, f"More than one language leads to {target}: say which source: {sources}.{through}"
            )
        return (fitting[0],)

    def unknown(self, model: str) -> TolkError:
        """What to say of a model that is not on offer."""
        closest = sorted(self.models, key=lambda name: -_beginning(name, model))
        return TolkError(Code.UNKNOWN_MODEL, f"There is no model {model!r}. Models: {_some(closest)}.")

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """Every way that `resolve` finds for a source and a target; the direct ones first, in the order of the file."""
        direct = [
            Way(source, target, tuple(leg.model.name for leg in legs))
            for (source, target), legs in self._legs.items()
            if source is not None
        ]
        indirect = [
            Way(source, target, tuple(leg.model.name for leg in legs), tuple(leg.pair.target for leg in legs[:-1]))
            for source in self._targets
            for target in dict.fromkeys(target for _, target in self._legs)
            if (source, target) not in self._legs and (legs := self._pivot(source, target))
        ]
        return (*direct, *indirect)

    @cached_property
    def _legs(self) -> Mapping[tuple[str | None, str], list[Leg]]:
        return _by_pair(self.models.values())

    @cached_property
    def _targets(self) -> Mapping[str, list[str]]:
        """By source."""
        targets: dict[str, list[str]] = {}
        for source, target in self._legs:
            if source is not None:
                targets.setdefault(source, []).append(target)
        return targets

    def _pivot(self, source: str | None, target: str) -> tuple[Leg, ...]:
        """The two legs through another language, or none."""
        if source is None or source == target:
            return ()
        for via in (PIVOT, *self._targets.get(source, ())):
            if (source, via) in self._legs and (via, target) in self._legs:
                return self._legs[source, via][0], self._legs[via, target][0]
        return ()


def _by_pair(models: Iterable[Entry]) -> dict[tuple[str | None, str], list[Leg]]:
    """Their legs by source and target, and by no source and target, each in the order of the file."""
    legs: dict[tuple[str | None, str], list[Leg]] = {}
    for model in models:
        for pair in model.pairs:
            for source in (pair.source, None):
                legs.setdefault((source, pair.target), []).append(Leg(model, pair))
    return legs


def _beginning(one: str, other: str) -> int:
    """How many characters they begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _some(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
