"""Sentence pairs from files: TSV, a pair a line, or TMX, both read as a stream and unpacked where they end in .gz."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast
from xml.parsers import expat

from models.errors import BadInput

_AT_ONCE = 1 << 16  # bytes of TMX
_CODES = {"bpt", "ept", "it", "ph", "ut"}  # elements of TMX whose text is markup, not language


class Pair(NamedTuple):
    """A sentence and its translation; one of them is empty where the file has none."""

    source: str
    target: str


def read_pairs(path: Path, source: str, target: str, *, reverse: bool = False) -> Iterator[Pair]:
    """The pairs of a file from language `source` to `target`.

    A line of TSV is source and target, the other way round where `reverse`; further columns are ignored. Of TMX the
    languages are its own: that of each variant, or its base (fr for fr-CA) where there is none.
    Raises BadInput for a file that cannot be read.
    """
    try:
        with _opened(path) as file:
            if path.name.removesuffix(".gz").endswith(".tmx"):
                yield from _tmx(file, source, target)
            else:
                yield from _tsv(file, reverse)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, expat.ExpatError) as error:
        raise BadInput(f"{path}: cannot be read as sentence pairs: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if path.suffix != ".gz":
            yield file
            return
        with gzip.open(file) as unpacked:
            yield cast("IO[bytes]", unpacked)


def _tsv(file: IO[bytes], reverse: bool) -> Iterator[Pair]:
    for line in file:
        first, _, rest = line.decode("utf-8").rstrip("\r\n").partition("\t")
        second = rest.partition("\t")[0]
        yield Pair(second, first) if reverse else Pair(first, second)


def _tmx(file: IO[bytes], source: str, target: str) -> Iterator[Pair]:
    found: list[Pair] = []
    units: dict[str, str] = {}
    text: list[str] = []
    language, inside, codes = "", False, 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal language, inside, codes
        if name == "tu":
            units.clear()
        elif name == "tuv":
            language = (attributes.get("xml:lang") or attributes.get("lang") or "").lower()
        elif name == "seg":
            inside, codes = True, 0
            text.clear()
        elif name in _CODES:
            codes += 1

    def end(name: str) -> None:
        nonlocal inside, codes
        if name in _CODES:
            codes -= 1
        elif name == "seg":
            inside = False
            units.setdefault(language, "".join(text))
        elif name == "tu":
            found.append(Pair(_variant(units, source), _variant(units, target)))

    def characters(data: str) -> None:
        if inside and not codes:
            text.append(data)

    def refuse(*_: object) -> None:
        raise BadInput("A TMX file that declares entities is not read.")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = characters, refuse
    while content := file.read(_AT_ONCE):
        parser.Parse(content)
        yield from found
        found.clear()
    parser.Parse(b"", True)
    yield from found


def _variant(units: dict[str, str], language: str) -> str:
    """The text in a language, or in the first of its variants."""
    language = language.lower()
    of_base = (text for code, text in units.items() if code.partition("-")[0] == language.partition("-")[0])
    return units.get(language) or next(of_base, "")
