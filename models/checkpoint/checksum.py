"""Which files a model is, and whether they are what they were: their SHA-256, and one checksum over all of them.

The checksum is that of the lines that sha256sum prints, sorted, so that coreutils tell it too:

    sha256sum *.json *.spm model.safetensors | LC_ALL=C sort | sha256sum
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.checkpoint.files import NEEDED, OPTIONAL, WEIGHTS, largest, opened, weights_path
from models.errors import BadInput

_LINE = re.compile(r"([0-9a-f]{64})  ([\w.]+)", re.A)


@dataclass(frozen=True, slots=True)
class Checksum:
    """The SHA-256 of a model's files, in hexadecimal digits, by their names."""

    digests: Mapping[str, str]

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Reads all of the model. Raises UnknownModel for a file that is missing or cannot be read."""
        names = [*NEEDED, *(name for name in OPTIONAL if os.path.lexists(directory / name))]
        return cls({name: digest(directory / name) for name in [*names, weights_path(directory).name]})

    @classmethod
    def parse(cls, lines: str) -> Self:
        """What `lines` wrote; without the lines that are none."""
        found = filter(None, map(_LINE.fullmatch, lines.splitlines()))
        return cls({match[2]: match[1] for match in found})

    @property
    def lines(self) -> str:
        """As sha256sum prints them, and sorted."""
        return "".join(sorted(f"{digest}  {name}\n" for name, digest in self.digests.items()))

    @property
    def version(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the weights."""
        return next(self.digests[name] for name in WEIGHTS if name in self.digests)[:12]

    def __str__(self) -> str:
        return f"sha256:{hashlib.sha256(self.lines.encode()).hexdigest()}"


def check_syntax(checksum: str | None) -> None:
    """Raises BadInput."""
    if checksum is not None and not re.fullmatch("sha256:[0-9a-f]{64}", checksum):
        raise BadInput("A checksum is sha256: and 64 hexadecimal digits, as `python -m models info` says.")


def digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal. Raises UnknownModel as files.opened does."""
    with opened(path, largest(path.name)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
