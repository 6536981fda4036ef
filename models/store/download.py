"""A file from elsewhere: a download that goes on where it stopped, be it in another process."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from io import FileIO
from pathlib import Path
from typing import TypeVar

from models.checkpoint.checksum import digest
from models.checkpoint.files import keeping, write
from models.errors import ModelError, Unavailable, UnknownModel
from models.store.origin import NoRanges, Origin, RemoteFile, is_final, said

TRIES = 5
PAUSE = 1.0  # seconds before the second try

Report = Callable[[int], None]
_Found = TypeVar("_Found")

logger = logging.getLogger(__name__)


def patiently(what: str, call: Callable[[], _Found], pause: float = PAUSE) -> _Found:
    """What `call` returns, which is tried again where it fails for a reason that may pass: after `pause` seconds, and
    twice as many before each further try.

    Raises UnknownModel where the other side refuses, Unavailable when enough has been tried.
    """
    tried = 1
    while True:
        try:
            return call()
        except ModelError:
            raise
        except Exception as error:  # of any library
            if is_final(error):
                raise UnknownModel(f"{what} is refused: {said(error)}.") from error
            if tried == TRIES:
                raise Unavailable(f"{what} failed {tried} times, at last: {said(error)}. Try again later.") from error
            logger.warning("%s failed: %s. It is tried again (%d of %d).", what, said(error), tried + 1, TRIES)
        time.sleep(pause * 2 ** (tried - 1))
        tried += 1


def download(origin: Origin, file: RemoteFile, directory: Path, report: Report) -> None:
    """Once, into `directory`/files, where a part of it may be; in `directory`/notes stands of which content that is.

    `report` is told how many bytes there are. Raises what the libraries raise where it is cut, UnknownModel where it is
    longer than it may be, NoSpace.
    """
    path, note = directory / "files" / file.name, directory / "notes" / file.name
    identity = json.dumps([file.size, file.tag])
    with keeping(path):
        if not (file.is_resumable and note.exists() and note.read_text() == identity):
            path.unlink(missing_ok=True)
            note.write_text(identity)
        opened = path.open("ab", buffering=0)
    with opened as out:
        report(out.tell())
        if not (file.is_resumable and out.tell() == file.size):
            _receive(out, origin, file, report)
    if file.sha256 is not None and digest(path) != file.sha256:
        path.unlink()
        raise ConnectionError("it was damaged on the way")


def _receive(out: FileIO, origin: Origin, file: RemoteFile, report: Report) -> None:
    """What is missing, or all of it where the server gives no parts."""
    try:
        _write(out, origin.blocks(file, out.tell()), file, report)
    except NoRanges:
        out.truncate(0)
        out.seek(0)
        _write(out, origin.stream(file), file, report)
    if file.size is not None and (came := out.tell()) != file.size:
        if came > file.size:
            out.truncate(0)
        raise ConnectionError(f"{came} bytes came of {file.size}")


def _write(out: FileIO, blocks: Iterable[bytes], file: RemoteFile, report: Report) -> None:
    for block in blocks:
        if out.tell() + len(block) > file.largest:
            raise UnknownModel(f"{file.path}: more came than the {file.largest} bytes that were expected.")
        write(out, block)
        report(out.tell())
    os.fsync(out)
