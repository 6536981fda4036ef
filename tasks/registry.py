"""models.toml as frozen dataclasses: which models there are, and where they come from. Standard library only."""

from __future__ import annotations

import logging
import re
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from tasks.contract import ON_DEMAND, SHARED, Code, Options, TolkError, shared_route

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")
PIVOT = "en"  # the language to go through before any other
LOOK = 1.0  # seconds until the file is looked at again
SHOWN = 12  # models, pairs or languages that an error names, at most

_EMBEDDED = r"[A-Za-z0-9_-]+"
_HUB = r"hf:[\w.-]+/[\w.-]+(@[\w./-]+)?"
_ADDRESS = r"(https?|s3|gs)://[^\s/@?#%]+/[^\s?#%]+"  # without user or query, which may be secret
_KEYS = {"reference", "pairs", "decoding", "precision", "warm", "checksum", "example"}

logger = logging.getLogger(__name__)


class RegistryError(Exception):
    """models.toml cannot be used; the message names the file, the entry and what was expected."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A direction a model translates in; `token` is the target token of a multilingual model, such as `>>fra<<`."""

    source: str
    target: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One entry.

    `reference` is an embedded model's name, an absolute directory, `hf:ORG/NAME`, or an address. A `warm` model is
    loaded before its worker takes work, any other on demand. `precision` is None for the worker's own; `checksum` is
    `sha256:` and 64 hexadecimal digits; `example` is a text to warm up with.
    """

    name: str
    reference: str
    pairs: tuple[Pair, ...]
    decoding: Options = field(default_factory=Options)
    precision: str | None = None
    warm: bool = True
    checksum: str | None = None
    example: str | None = None

    @property
    def route(self) -> str:
        """What its queues are named after: the model where it is warm, else what it shares with others on demand."""
        return self.name if self.warm else shared_route(self.name)


class Leg(NamedTuple):
    """A model, and the direction of its that is taken: a whole way, or one of the two through another language."""

    model: Model
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

    models: Mapping[str, Model]

    @cached_property
    def routes(self) -> tuple[str, ...]:
        """The routes that lead to them; all of the shared ones as soon as there is a model on demand."""
        warm = tuple(name for name, model in self.models.items() if model.warm)
        return warm if len(warm) == len(self.models) else warm + SHARED

    @classmethod
    def load(cls, path: Path) -> Registry:
        """Raises RegistryError for a file that is missing, is not TOML, or does not say what is needed."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RegistryError(f"{path}: cannot be read ({error.strerror}).") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RegistryError(f"{path}: is not TOML: {error}.") from error
        _check_keys(document, {"models"}, {"models"}, str(path))
        entries = document["models"]
        if not isinstance(entries, dict) or not entries:
            raise RegistryError(f"{path}: has no [models.NAME] entry.")
        return cls({name: _model(name, entry, path) for name, entry in entries.items()})

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


class RegistryFile:
    """A models.toml that may change while it is in use. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Raises RegistryError as Registry.load does."""
        self.path = path
        self._lock = threading.Lock()
        self._seen = _identity(path)
        self._registry = Registry.load(path)
        self._outdated = time.monotonic() + LOOK

    def current(self) -> Registry:
        """What the file says, a second ago at most; what it said last where it is wrong now, which the log says."""
        if time.monotonic() >= self._outdated and self._lock.acquire(blocking=False):
            try:  # one caller looks: to read a thousand models takes a tenth of a second
                self._look()
                self._outdated = time.monotonic() + LOOK
            finally:
                self._lock.release()
        return self._registry

    def latest(self) -> Registry:
        """As `current`, for which the file is looked at now."""
        with self._lock:
            self._look()
        return self._registry

    def _look(self) -> None:
        seen = _identity(self.path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._registry = Registry.load(self.path)
        except RegistryError as error:
            logger.error("%s What it said before still holds.", error)
        else:
            logger.info("%s has changed: it has %d models now.", self.path, len(self._registry.models))


def _by_pair(models: Iterable[Model]) -> dict[tuple[str | None, str], list[Leg]]:
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


def _identity(path: Path) -> object:
    """Differs when the file does, whether it was written or replaced; where links lead counts."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _model(name: str, entry: Any, path: Path) -> Model:
    where = f"{path}: [models.{name}]"
    if not name or set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"):
        raise RegistryError(f"{where}: a name holds letters, digits, - and _ only.")
    if name == ON_DEMAND:
        raise RegistryError(f"{where}: the queues of all models on demand are called so; choose another name.")
    _check_keys(entry, {"reference", "pairs"}, _KEYS, where)
    reference = entry["reference"]
    if not isinstance(reference, str) or not reference:
        raise RegistryError(f"{where}: reference is a model's name, a directory, hf:ORG/NAME, or an address.")
    precision, checksum, example = entry.get("precision"), entry.get("checksum"), entry.get("example")
    if precision not in (None, *PRECISIONS):
        raise RegistryError(f"{where}: precision is one of {', '.join(PRECISIONS)}.")
    if type(entry.get("warm", True)) is not bool:
        raise RegistryError(f"{where}: warm is true, or false for a model on demand.")
    if checksum is not None and not (isinstance(checksum, str) and re.fullmatch("sha256:[0-9a-f]{64}", checksum)):
        raise RegistryError(f"{where}: checksum is sha256: and 64 hexadecimal digits, as `python -m models info` says.")
    if example is not None and not (isinstance(example, str) and example.strip()):
        raise RegistryError(f"{where}: example is a text for the model to translate.")
    pairs = entry["pairs"]
    if not isinstance(pairs, list) or not pairs:
        raise RegistryError(f'{where}: pairs is a list such as [{{ source = "fr", target = "en" }}].')
    return Model(
        name=name,
        reference=_locate(reference, path.parent, where),
        pairs=tuple(_pair(pair, where) for pair in pairs),
        decoding=_decoding(entry.get("decoding", {}), where),
        precision=precision,
        warm=entry.get("warm", True),
        checksum=checksum,
        example=example,
    )


def _locate(reference: str, base: Path, where: str) -> str:
    """A directory has a slash, or starts with a dot, and is relative to models.toml; anything else is as it is."""
    if any(re.fullmatch(form, reference, re.ASCII) for form in (_EMBEDDED, _HUB, _ADDRESS)):
        return reference
    if ":" in reference or (not reference.startswith(".") and "/" not in reference):
        shown = reference.partition(":")[0] + ":…" if re.search("[@?#%]", reference) else reference
        raise RegistryError(
            f"{where}: reference {shown!r} is no embedded model's name, no ./directory, no hf:ORG/NAME, and no "
            "address of https://, s3:// or gs://."
        )
    try:
        return str((base / reference).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, NUL
        raise RegistryError(f"{where}: reference cannot be followed: {error}.") from error


def _pair(pair: Any, where: str) -> Pair:
    _check_keys(pair, {"source", "target"}, {"source", "target", "token"}, f"{where}: pairs")
    if not all(isinstance(value, str) and value for value in pair.values()):
        raise RegistryError(f"{where}: source, target and token of a pair are strings.")
    return Pair(**pair)


def _decoding(decoding: Any, where: str) -> Options:
    _check_keys(decoding, set(), {"beam", "length_penalty"}, f"{where}: decoding")
    try:
        return Options.decode({"beam": 1, "nbest": 1, "length_penalty": 1.0, **decoding})
    except TolkError as error:
        raise RegistryError(f"{where}: decoding: {error.message}") from error


def _check_keys(table: Any, required: set[str], allowed: set[str], where: str) -> None:
    if not isinstance(table, dict):
        raise RegistryError(f"{where}: a table was expected.")
    if missing := required - table.keys():
        raise RegistryError(f"{where}: {', '.join(sorted(missing))} is missing.")
    if unknown := table.keys() - allowed:
        raise RegistryError(
            f"{where}: {', '.join(sorted(unknown))} is not known here; known are {', '.join(sorted(allowed))}."
        )
