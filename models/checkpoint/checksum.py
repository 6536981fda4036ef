"""The SHA-256 of each file of a model, and one checksum over all of them.

The checksum is the SHA-256 of the sorted lines that sha256sum prints, so that coreutils can compute it, too:

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
    """`digests`: by name of a model's file, its SHA-256 in hexadecimal digits."""

    digests: Mapping[str, str]

    @classmethod
    def of(cls, directory: Path) -> Self:
        """The checksum of a model's directory, whose files are all read. Raises UnknownModel for a file that is missing
        or cannot be read."""
        names = [*NEEDED, *(name for name in OPTIONAL if os.path.lexists(directory / name))]
        return cls({name: digest(directory / name) for name in [*names, weights_path(directory).name]})

    @classmethod
    def parse(cls, lines: str) -> Self:
        """Reads what `lines` returns; malformed lines are left out."""
        found = filter(None, map(_LINE.fullmatch, lines.splitlines()))
        return cls({match[2]: match[1] for match in found})

    @property
    def lines(self) -> str:
        """The lines that sha256sum prints, sorted."""
        return "".join(sorted(f"{digest}  {name}\n" for name, digest in self.digests.items()))

    @property
    def version(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the weights."""
        return next(self.digests[name] for name in WEIGHTS if name in self.digests)[:12]

    def __str__(self) -> str:
        return f"sha256:{hashlib.sha256(self.lines.encode()).hexdigest()}"


def check_syntax(checksum: str | None) -> None:
    """Raises BadInput for a checksum that is not sha256: and 64 hexadecimal digits."""
    if checksum is not None and not re.fullmatch("sha256:[0-9a-f]{64}", checksum):
        raise BadInput("A checksum is sha256: and 64 hexadecimal digits, as `python -m models info` says.")


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits. Raises UnknownModel as files.opened does."""
    with opened(path, largest(path.name)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
