"""Unpacks the files of a model from an untrusted archive: .tar, .tar.gz, .tgz or .zip."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO, RawIOBase
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from models.checkpoint.files import LARGEST_WEIGHTS, NEEDED, OPTIONAL, WEIGHTS, largest, quote, write
from models.errors import Unavailable, UnknownModel

MOST_ENTRIES = 1000
LARGEST_WHOLE = 3 * LARGEST_WEIGHTS  # bytes of all entries; many archives have the weights once for each framework
LARGEST_TABLE = 1 << 18  # bytes of an archive's table of contents, or of a name

_CHUNK = 1 << 16  # bytes
_KINDS = {0: "a file", stat.S_IFREG: "a file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a link"}


class _Member(NamedTuple):
    name: str
    size: int
    kind: str
    open: Callable[[], IO[bytes] | None]  # returns None for an entry that is not a file


def unpack(archive: Path, directory: Path, *, largest_weights: int = LARGEST_WEIGHTS) -> None:
    """Writes the files of a model into `directory`. In the archive they are at the top, or in one folder at the top.

    Other files are left out. A file of weights may have up to `largest_weights` bytes. Raises UnknownModel for an
    archive that is broken, holds a link, a device, a name that leads out of it or the same file twice, or has more
    entries or bytes than any model. Raises NoSpace and Unavailable as files.write does.
    """
    try:
        with archive.open("rb") as file:
            entries = _zip(file) if archive.suffix == ".zip" else _tar(file, archive.suffix != ".tar")
            _unpack(entries, directory, largest_weights)
    except (MemoryError, Unavailable):
        raise
    except Exception as error:  # the parsers may raise anything for malformed bytes
        raise UnknownModel(f"{archive}: is not a valid archive of a model: {quote(error)}") from error


def _unpack(entries: Iterator[_Member], directory: Path, largest_weights: int) -> None:
    whole, folders = 0, set()
    for count, member in enumerate(entries, 1):
        path, said = PurePosixPath(member.name), quote(repr(member.name))
        whole += member.size
        if count > MOST_ENTRIES or whole > LARGEST_WHOLE:
            raise UnknownModel(f"it has more than {MOST_ENTRIES} entries, or more than {LARGEST_WHOLE} bytes in them.")
        if path.is_absolute() or ".." in path.parts or "\\" in member.name:
            raise UnknownModel(f"{said} leads out of the archive.")
        if member.kind not in ("a file", "a directory"):
            raise UnknownModel(f"{said} is {member.kind}; files were expected (tar --dereference follows links).")
        if member.kind == "a directory" or len(path.parts) > 2 or path.name not in (*NEEDED, *OPTIONAL, *WEIGHTS):
            continue
        folders.add(path.parent)
        if len(folders) > 1 or os.path.lexists(directory / path.name):
            raise UnknownModel(f"{said}: the archive has it twice, or not in the folder of the other files.")
        if member.size > (most := largest(path.name, weights=largest_weights)):
            raise UnknownModel(f"{said} has {member.size} bytes; at most {most} were expected.")
        with (directory / path.name).open("xb", buffering=0) as out, member.open() or BytesIO() as content:
            while chunk := content.read(_CHUNK):
                write(out, chunk)


def _tar(file: IO[bytes], is_compressed: bool) -> Iterator[_Member]:
    content = gzip.GzipFile(fileobj=file) if is_compressed else file
    with tarfile.open(fileobj=_Bounded(content), mode="r:") as archive:
        for member in archive:
            is_file = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
            kind = "a file" if is_file else "a directory" if member.isdir() else "a link, a device or sparse"
            yield _Member(member.name, member.size, kind, partial(archive.extractfile, member))


def _zip(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(_Bounded(file)) as archive:
        for member in archive.infolist():
            kind = "a directory" if member.is_dir() else _KINDS.get(stat.S_IFMT(member.external_attr >> 16), "a device")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UnknownModel(f"{quote(repr(member.filename))} has an unsupported compression: use deflate.")
            yield _Member(member.filename, member.file_size, kind, partial(archive.open, member))


class _Bounded(RawIOBase):
    """A file that refuses large reads, because the libraries read tables and names whole, however long they are."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(min(size, LARGEST_TABLE + 1) if size >= 0 else LARGEST_TABLE + 1)
        if len(content) > LARGEST_TABLE:
            raise UnknownModel(f"it has a table or a name of more than {LARGEST_TABLE} bytes.")
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def seekable(self) -> bool:
        return True
