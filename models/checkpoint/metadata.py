"""What Tolk's own file in a model's directory, tolk.json, says: which pieces of its vocabulary are symbols.

{"symbols": {"holds": ["⟦h0⟧", …], "pairs": [["⟦o0⟧", "⟦c0⟧"], …], "term": ["⟦t⟧", "⟦/t⟧"]}}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from models.checkpoint.files import quote, read_json
from models.errors import UnknownModel

METADATA = "tolk.json"


@dataclass(frozen=True, slots=True)
class Symbols:
    """Pieces that a model was taught to copy: each of `holds` stands for something, each of `pairs` (opening, closing)
    goes around some words. Between the two of `term`, which follow words of the source, stands how to translate these;
    empty where the model knows no such annotation."""

    holds: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    term: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.holds, *(mark for pair in self.pairs for mark in pair), *self.term)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Of a model's directory: none where it has no such file. Raises UnknownModel for a file that says it wrongly.

        What else the file says is ignored."""
        path = directory / METADATA
        said = read_json(path, required=False).get("symbols", {})
        if not isinstance(said, dict):
            raise UnknownModel(f"{path}: symbols is {quote(said)}; an object was expected.")
        holds, pairs, term = (said.get(name, []) for name in ("holds", "pairs", "term"))
        two = _are_strings(term) and len(term) in (0, 2)
        if not _are_strings(holds) or not two or not isinstance(pairs, list):
            raise UnknownModel(f"{path}: symbols: holds and pairs are lists, term is a list of two, of strings.")
        if not all(_are_strings(pair) and len(pair) == 2 for pair in pairs):
            raise UnknownModel(f"{path}: symbols: pairs holds {quote(pairs)}; pairs of strings were expected.")
        symbols = cls(tuple(holds), tuple((opening, closing) for opening, closing in pairs), tuple(term))
        if len(set(symbols.all)) < len(symbols.all):
            raise UnknownModel(f"{path}: a symbol is there twice.")
        return symbols

    def said(self) -> dict[str, Any]:
        """The object of the file."""
        return {
            "symbols": {"holds": [*self.holds], "pairs": [[*pair] for pair in self.pairs], "term": [*self.term]},
        }


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and each for each in value)
