"""The files of a model's directory, which may come from anybody: each is bounded before it is read."""

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
OPTIONAL = ("generation_config.json", "tokenizer_config.json", "target_vocab.json", "tolk.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there; the other is not looked at

# Bytes. No real checkpoint is near these.
LARGEST_WEIGHTS = 4 << 30
LARGEST_OTHER = 16 << 20

_LONGEST_QUOTE = 200  # characters


def largest(name: str, *, weights: int = LARGEST_WEIGHTS) -> int:
    """The bytes that a file of this name may have, where one of weights may have so many."""
    return weights if name in WEIGHTS else LARGEST_OTHER


def weights_path(directory: Path) -> Path:
    """The checkpoint's file; safetensors goes before the older format. Raises UnknownModel where there is neither."""
    for name in WEIGHTS:
        if os.path.lexists(directory / name):
            return directory / name
    raise UnknownModel(f"{directory}: has neither {' nor '.join(WEIGHTS)}.")


@contextmanager
def opened(path: Path, largest: int = LARGEST_OTHER) -> Iterator[BufferedReader]:
    """A regular file, or what links lead to if that is one, to read from.

    Reading from anything else (a device, a pipe) may never end; so may files of the kernel's own, which say that they
    are empty. Raises UnknownModel for those, and where the system does not let it be read.
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
    """Raises UnknownModel as `opened` does."""
    with opened(path) as file:
        return file.read(LARGEST_OTHER)


def write(file: FileIO, content: bytes) -> None:
    """All of it. Raises as `keeping` does."""
    rest = memoryview(content)
    with keeping(Path(str(file.name))):
        while rest:
            rest = rest[file.write(rest) :]


@contextmanager
def keeping(path: Path) -> Iterator[None]:
    """For what is done to files of ours: raises NoSpace, or Unavailable where the system does not let it happen."""
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
    """The object in a JSON file; an empty one where the file is missing and may be. Raises UnknownModel."""
    if not required and not os.path.lexists(path):
        return {}
    content = read(path)
    try:
        data = json.loads(content.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise UnknownModel(f"{path}: is no JSON: {quote(error)}.") from error
    if not isinstance(data, dict):
        raise UnknownModel(f"{path}: a JSON object was expected.")
    return data


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json.loads: a JSON object. Raises ValueError where a name is there twice, which every reader takes its own
    way (RFC 8259, section 4)."""
    data = dict(pairs)
    if len(data) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is there twice")
    return data


def quote(said: object) -> str:
    """What a file says, or a library about it, fit for a line of a log."""
    text = reprlib.repr(said) if isinstance(said, list | dict) else str(said)
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: _LONGEST_QUOTE + 1])
    return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + "…"
