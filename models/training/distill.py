"""A student's corpus: what a teacher makes of sentences (Kim and Rush 2016, https://arxiv.org/abs/1606.07947)."""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from models.errors import BadInput
from models.local import LocalTranslator
from models.training.evaluate import replaced_beam

_AT_ONCE = 1 << 20  # bytes
_USELESS = {"REPETITION", "TRUNCATED", "UNKNOWN_TOKENS"}

logger = logging.getLogger(__name__)


def distill(
    translator: LocalTranslator,
    texts: Iterable[str],
    output: Path,
    *,
    beam: int,
    target: str | None = None,
    lines: int = 2000,
) -> int:
    """Writes a line for each text, `text TAB translation`, packed with gzip; returns how many there are in the file.

    What an earlier call has written stays and is not translated again. A text that has no good translation gets none:
    its line ends in a tab, and cleaning leaves it out. Every `lines` lines are a gzip member that is on disk before the
    next ones are translated.
    """
    done, size = finished(output)
    texts = iter(texts)
    if len(list(islice(texts, done))) < done:
        raise BadInput(f"{output} has more lines than there are texts: it is of other ones.")
    with output.open("r+b" if output.exists() else "w+b") as file, tqdm(initial=done, unit="text", disable=None) as bar:
        file.truncate(size)
        file.seek(size)
        while some := list(islice(texts, lines)):
            results = translator.translate(some, target=target, options=replaced_beam(translator, beam)).results
            good = ["" if _USELESS & {*result.flags} else result.text or "" for result in results]
            pairs = (f"{_flat(text)}\t{_flat(made)}\n" for text, made in zip(some, good, strict=True))
            file.write(gzip.compress("".join(pairs).encode(), mtime=0))
            file.flush()
            os.fsync(file.fileno())
            done += len(some)
            bar.update(len(some))
    return done


def finished(path: Path) -> tuple[int, int]:
    """The lines of the whole gzip members that a file begins with, and the bytes that these take."""
    if not path.exists():
        return 0, 0
    lines = size = 0
    for content, end in _members(path):
        lines, size = lines + content, end
    return lines, size


def _members(path: Path) -> Iterator[tuple[int, int]]:
    """Lines in each member, and where it ends; a member that was cut off is left out."""
    with path.open("rb") as file:
        rest, read = b"", 0
        unpacker, lines = zlib.decompressobj(zlib.MAX_WBITS | 16), 0
        while data := rest or file.read(_AT_ONCE):
            read += 0 if rest else len(data)
            try:
                lines += unpacker.decompress(data).count(b"\n")
            except zlib.error:
                return
            rest = unpacker.unused_data
            if unpacker.eof:
                yield lines, read - len(rest)
                unpacker, lines = zlib.decompressobj(zlib.MAX_WBITS | 16), 0


def _flat(text: str) -> str:
    return " ".join(text.split())
