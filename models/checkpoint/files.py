"""The files of a model's directory. They are not trusted: each file's size is checked before it is read."""

from __future__ import annotations

import errno
import json
import os
import reprlib
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from models.errors import NoSpace, Unavailable, UnknownModel

NEEDED = ("config.json", "vocab.json", "source.spm", "target.spm")
OPTIONAL = (
    "generation_config.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "target_vocab.json",
    "tolk.json",
)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that exists is used, the other is ignored

# Bytes. No real checkpoint is near these.
LARGEST_WEIGHTS = 4 << 30
LARGEST_OTHER = 16 << 20

_LONGEST_QUOTE = 200  # characters


def largest(name: str, *, weights: int = LARGEST_WEIGHTS) -> int:
    """The most bytes that a file of this name may have. `weights`: the limit for a file of weights."""
    return weights if name in WEIGHTS else LARGEST_OTHER


def weights_path(directory: Path) -> Path:
    """The path of the checkpoint: model.safetensors if there is one, else pytorch_model.bin.

    Raises UnknownModel if there is neither.
    """
    for name in WEIGHTS:
        if os.path.lexists(directory / name):
            return directory / name
    raise UnknownModel(f"{directory}: has neither {' nor '.join(WEIGHTS)}.")


@contextmanager
def opened(path: Path, largest: int = LARGEST_OTHER) -> Iterator[BufferedReader]:
    """Opens a regular file of 1 to `largest` bytes, or a link to one, for reading.

    Raises UnknownModel for any other file, or if the file cannot be read. Reading from a device or a pipe may never
    end; neither may reading from files such as those in /proc, whose size is 0.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnknownModel(f"{path}: a regular file was expected.")
        if not 0 < status.st_size <= largest:
            raise UnknownModel(f"{path}: has {status.st_size} bytes; 1 to {largest} were expected.")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise UnknownModel(f"{path}: cannot be read: {error.strerror}.") from error


def read(path: Path) -> bytes:
    """The content of a file. Raises UnknownModel as `opened` does."""
    with opened(path) as file:
        return file.read(LARGEST_OTHER)


def write(file: FileIO, content: bytes) -> None:
    """Writes all of `content`. Raises NoSpace or Unavailable as `keeping` does."""
    rest = memoryview(content)
    with keeping(Path(str(file.name))):
        while rest:
            rest = rest[file.write(rest) :]


@contextmanager
def keeping(path: Path) -> Iterator[None]:
    """Context for Tolk's own files: turns an OSError into NoSpace if the disk is full, else into Unavailable."""
    try:
        yield
    except OSError as error:
        path = Path(error.filename or path)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                f"{path}: the disk is full. Make room there, or name another directory (TOLK_MODEL_CACHE)."
            ) from error
        raise Unavailable(f"{path}: cannot be used: {error.strerror or error}.") from error


def read_json(path: Path, *, required: bool = True) -> dict[str, Any]:
    """The object in a JSON file; {} if the file does not exist and is not `required`. Raises UnknownModel."""
    if not required and not os.path.lexists(path):
        return {}
    content = read(path)
    try:
        data = json.loads(content.decode("utf-8-sig"), object_pairs_hook=unique)  # some editors write the mark
    except (ValueError, RecursionError) as error:
        raise UnknownModel(f"{path}: is not valid JSON: {quote(error)}.") from error
    if not isinstance(data, dict):
        raise UnknownModel(f"{path}: a JSON object was expected.")
    return data


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object_pairs_hook of json.loads: the pairs as a dict. Raises ValueError for a name that occurs twice, which
    readers of JSON treat in different ways (RFC 8259, section 4)."""
    data = dict(pairs)
    if len(data) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} occurs twice")
    return data


def quote(said: object) -> str:
    """Untrusted content, or a library's message about it, as one short line of printable characters."""
    text = reprlib.repr(said) if isinstance(said, list | dict) else str(said)
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: _LONGEST_QUOTE + 1])
    return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + "…"
