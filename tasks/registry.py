"""models.toml as frozen dataclasses: which models there are, and where they come from. Standard library only."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.contract import Code, Options, TolkError


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
    """One entry. `reference` is an embedded model's name or an absolute directory."""

    name: str
    reference: str
    pairs: tuple[Pair, ...]
    decoding: Options = field(default_factory=Options)


@dataclass(frozen=True, slots=True)
class Registry:
    """The models on offer, in the order of the file."""

    models: Mapping[str, Model]

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

    def resolve(self, source: str | None, target: str, model: str | None) -> tuple[Model, Pair]:
        """The model and direction for a request.

        Raises TolkError: UNKNOWN_MODEL for a model or pair that is not on offer, with what is;
        BAD_INPUT where `source` was left out and more than one direction leads to the target.
        """
        if model is not None and model not in self.models:
            raise TolkError(Code.UNKNOWN_MODEL, f"There is no model {model!r}. Models: {', '.join(self.models)}.")
        candidates = [self.models[model]] if model is not None else list(self.models.values())
        fitting = [
            (entry, pair)
            for entry in candidates
            for pair in entry.pairs
            if pair.target == target and source in (None, pair.source)
        ]
        if not fitting:
            wanted = f"from {source} to {target}" if source is not None else f"to {target}"
            offered = ", ".join(sorted({f"{p.source}-{p.target}" for e in candidates for p in e.pairs}))
            named = f"Model {model!r}" if model is not None else "No model"
            verb = "does not translate" if model is not None else "translates"
            raise TolkError(Code.UNKNOWN_MODEL, f"{named} {verb} {wanted}. Pairs: {offered}.")
        if source is None and len(fitting) > 1:
            sources = ", ".join(sorted({f"{pair.source} ({entry.name})" for entry, pair in fitting}))
            raise TolkError(
                Code.BAD_INPUT, f"More than one way leads to {target}: say which source, or model: {sources}."
            )
        return fitting[0]


def _model(name: str, entry: Any, path: Path) -> Model:
    where = f"{path}: [models.{name}]"
    if not name or set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"):
        raise RegistryError(f"{where}: a name holds letters, digits, - and _ only.")
    _check_keys(entry, {"reference", "pairs"}, {"reference", "pairs", "decoding"}, where)
    reference = entry["reference"]
    if not isinstance(reference, str) or not reference:
        raise RegistryError(f"{where}: reference is a model's name or a directory.")
    pairs = entry["pairs"]
    if not isinstance(pairs, list) or not pairs:
        raise RegistryError(f'{where}: pairs is a list such as [{{ source = "fr", target = "en" }}].')
    return Model(
        name=name,
        reference=_locate(reference, path.parent, where),
        pairs=tuple(_pair(pair, where) for pair in pairs),
        decoding=_decoding(entry.get("decoding", {}), where),
    )


def _locate(reference: str, base: Path, where: str) -> str:
    """With a slash or a leading dot it is a directory, relative to models.toml; a bare word is a name."""
    if "/" not in reference and not reference.startswith("."):
        return reference
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
