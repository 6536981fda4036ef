"""Finds the models that translate from one language to another: directly, or through a pivot language."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product, takewhile
from typing import NamedTuple

from tasks.contract.errors import Code, TolkError
from tasks.contract.names import SHARED
from tasks.registry.entry import Entry, Pair
from text.languages import canonical, nearest

PIVOT = "en"  # the pivot language that is tried first
REMEMBERED = 4_096  # the largest number of answers to requests that a registry keeps, since clients choose the tags
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


class Sources(NamedTuple):
    """The languages that can be translated into one: by a model directly, or only through a pivot language."""

    direct: tuple[str, ...]
    indirect: tuple[str, ...]


@dataclass(frozen=True)
class Registry:
    """The models on offer, in the order of the file. Languages are tags in their canonical spelling."""

    models: Mapping[str, Entry]

    @cached_property
    def routes(self) -> tuple[str, ...]:
        """The routes of all warm models, followed by all of SHARED if at least one model is on demand."""
        warm = tuple(name for name, model in self.models.items() if model.warm)
        return warm if len(warm) == len(self.models) else warm + SHARED

    def resolve(self, source: str, target: str, model: str | None) -> tuple[Leg, ...]:
        """The legs of a request: one leg, or two through a pivot language. `model` may be None.

        `source` and `target` are tags in any spelling. The pair that is nearest to them (text.languages.nearest)
        counts; the legs say which one that is.

        Two legs are used if no model is named, and none translates directly. The pivot is PIVOT or, if that does not
        lead to the target, the first language of the file that does. Each leg uses the first model of the file that
        fits.

        Raises TolkError(UNKNOWN_MODEL), which names alternatives, if the model or the pair is not on offer.
        """
        return self._resolve(source, target, model)

    def sources(self, target: str, model: str | None) -> Sources:
        """The languages that `resolve` finds legs from to `target`, in the order of the file.

        Raises TolkError(UNKNOWN_MODEL), which names alternatives, if there is none, or no such model.
        """
        return self._sources(target, model)

    @cached_property
    def _resolve(self) -> Callable[[str, str, str | None], tuple[Leg, ...]]:
        return lru_cache(REMEMBERED)(self._find)

    @cached_property
    def _sources(self) -> Callable[[str, str | None], Sources]:
        return lru_cache(REMEMBERED)(self._find_sources)

    def _find(self, source: str, target: str, model: str | None) -> tuple[Leg, ...]:
        legs = self._offered(model)
        near = _nearest(source, target, legs)
        for pair in near:
            if pair in legs:
                return (legs[pair][0],)
        if model is None and canonical(source) != canonical(target):  # nobody wants a text there and back
            for pair in near:
                if way := self._pivot(*pair):
                    return way
        raise _no_way(source, target, model, legs)

    def _find_sources(self, target: str, model: str | None) -> Sources:
        legs = self._offered(model)
        pairs = legs if model else [(way.source, way.target) for way in self.ways]
        near = nearest(target, dict.fromkeys(end for _, end in pairs))
        direct, all_of_them = (dict.fromkeys(start for start, end in some if end in near) for some in (legs, pairs))
        if not all_of_them:
            raise _no_way(None, target, model, legs)
        return Sources(tuple(direct), tuple(each for each in all_of_them if each not in direct))

    def _offered(self, model: str | None) -> Mapping[tuple[str, str], list[Leg]]:
        if model is None:
            return self._legs
        if model not in self.models:
            raise self.unknown(model)
        return _by_pair([self.models[model]])

    def unknown(self, model: str) -> TolkError:
        """The error for a model that is not on offer; it names those with the most similar names."""
        closest = sorted(self.models, key=lambda name: -_beginning(name, model))
        return TolkError(Code.UNKNOWN_MODEL, f"There is no model {model!r}. Models: {_some(closest)}.")

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """Every way that `resolve` finds for a source and a target: the direct ones first, in the order of the file."""
        direct = [
            Way(source, target, tuple(leg.model.name for leg in legs)) for (source, target), legs in self._legs.items()
        ]
        indirect = [
            Way(source, target, tuple(leg.model.name for leg in legs), tuple(leg.pair.target for leg in legs[:-1]))
            for source in self._targets
            for target in dict.fromkeys(target for _, target in self._legs)
            if (source, target) not in self._legs and (legs := self._pivot(source, target))
        ]
        return (*direct, *indirect)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages that texts can be translated from, in the order of the file."""
        return tuple(dict.fromkeys(way.source for way in self.ways))

    @cached_property
    def _legs(self) -> Mapping[tuple[str, str], list[Leg]]:
        return _by_pair(self.models.values())

    @cached_property
    def _targets(self) -> Mapping[str, list[str]]:
        """The target languages that models translate to directly, by source language."""
        targets: dict[str, list[str]] = {}
        for source, target in self._legs:
            targets.setdefault(source, []).append(target)
        return targets

    def _pivot(self, source: str, target: str) -> tuple[Leg, ...]:
        """The two legs through a pivot language; empty if there is none."""
        if source == target:
            return ()
        for via in (PIVOT, *self._targets.get(source, ())):
            if (source, via) in self._legs and (via, target) in self._legs:
                return self._legs[source, via][0], self._legs[via, target][0]
        return ()


def _by_pair(models: Iterable[Entry]) -> dict[tuple[str, str], list[Leg]]:
    """The legs of `models` by (source, target), each list in the order of the file."""
    legs: dict[tuple[str, str], list[Leg]] = {}
    for model in models:
        for pair in model.pairs:
            legs.setdefault((pair.source, pair.target), []).append(Leg(model, pair))
    return legs


def _nearest(source: str, target: str, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The languages of `pairs` that are near to both, each with each, the nearest first."""
    pairs = tuple(pairs)
    sources = nearest(source, dict.fromkeys(start for start, _ in pairs))
    targets = nearest(target, dict.fromkeys(end for _, end in pairs))
    ranked = sorted(product(range(len(sources)), range(len(targets))), key=lambda ranks: (sum(ranks), max(ranks)))
    return [(sources[i], targets[j]) for i, j in ranked]


def _no_way(source: str | None, target: str, model: str | None, legs: Iterable[tuple[str, str]]) -> TolkError:
    """The error for languages that are not on offer; it names pairs that are, those with one of the languages first."""
    wanted = f"to {target}" if source is None else f"from {source} to {target}"
    start = () if source is None else nearest(source, {start for start, _ in legs})
    end = nearest(target, {end for _, end in legs})
    pairs = sorted(legs, key=lambda pair: (pair[0] not in start and pair[1] not in end, pair))
    subject = "No model translates" if model is None else f"Model {model!r} does not translate"
    offered = _some([f"{start}-{end}" for start, end in pairs])
    return TolkError(Code.UNKNOWN_MODEL, f"{subject} {wanted}. Pairs: {offered}.")


def _beginning(one: str, other: str) -> int:
    """The length of the common prefix, in characters."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _some(names: Sequence[str]) -> str:
    """The first SHOWN names, and the number of the others."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
