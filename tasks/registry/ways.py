"""Finds the models that translate from one language to another: directly, or through a pivot language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

from tasks.contract.errors import Code, TolkError
from tasks.contract.names import SHARED
from tasks.registry.entry import Entry, Pair

PIVOT = "en"  # the pivot language that is tried first
SHOWN = 12  # the largest number of models, pairs or languages that an error names


class Leg(NamedTuple):
    """A model and the language pair of it that is used: a direct way, or one of the two steps through a pivot."""

    model: Entry
    pair: Pair


class Way(NamedTuple):
    """A way from `source` to `target`.

    Without `via` it is direct, and `models` are alternatives. With `via` it goes through these languages, and `models`
    has the model of each leg, in order.
    """

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
        """The routes of all warm models, followed by all of SHARED if at least one model is on demand."""
        warm = tuple(name for name, model in self.models.items() if model.warm)
        return warm if len(warm) == len(self.models) else warm + SHARED

    def resolve(self, source: str | None, target: str, model: str | None) -> tuple[Leg, ...]:
        """The legs of a request, whose `source` and `model` may be None: one leg, or two through a pivot language.

        Two legs are used if `source` is given, `model` is not, and no model translates the pair directly. The pivot is
        PIVOT or, if that does not lead to the target, the first language of the file that does. Each leg uses the first
        model of the file that fits.

        Raises TolkError: UNKNOWN_MODEL, which names alternatives, if the model or the pair is not on offer; BAD_INPUT
        if `source` is None and more than one source language leads to the target.
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
                Code.BAD_INPUT,
                f"Models translate to {target} from more than one language. Set source to one of: {sources}.{through}",
            )
        return (fitting[0],)

    def unknown(self, model: str) -> TolkError:
        """The error for a model that is not on offer; it names those with the most similar names."""
        closest = sorted(self.models, key=lambda name: -_beginning(name, model))
        return TolkError(Code.UNKNOWN_MODEL, f"There is no model {model!r}. Models: {_some(closest)}.")

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """Every way that `resolve` finds for a source and a target: the direct ones first, in the order of the file."""
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
        """The target languages that models translate to directly, by source language."""
        targets: dict[str, list[str]] = {}
        for source, target in self._legs:
            if source is not None:
                targets.setdefault(source, []).append(target)
        return targets

    def _pivot(self, source: str | None, target: str) -> tuple[Leg, ...]:
        """The two legs through a pivot language; empty if there is none."""
        if source is None or source == target:
            return ()
        for via in (PIVOT, *self._targets.get(source, ())):
            if (source, via) in self._legs and (via, target) in self._legs:
                return self._legs[source, via][0], self._legs[via, target][0]
        return ()


def _by_pair(models: Iterable[Entry]) -> dict[tuple[str | None, str], list[Leg]]:
    """The legs of `models` by (source, target), and again by (None, target), each list in the order of the file."""
    legs: dict[tuple[str | None, str], list[Leg]] = {}
    for model in models:
        for pair in model.pairs:
            for source in (pair.source, None):
                legs.setdefault((source, pair.target), []).append(Leg(model, pair))
    return legs


def _beginning(one: str, other: str) -> int:
    """The length of the common prefix, in characters."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _some(names: Sequence[str]) -> str:
    """The first SHOWN names, and the number of the others."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
