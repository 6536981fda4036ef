"""Downloads a file. A download continues where it stopped, even if another process began it."""

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
from models.store.allowance import Allowance
from models.store.origin import NoRanges, Origin, RemoteFile, is_final, said

TRIES = 5
PAUSE = 1.0  # seconds before the second try

Report = Callable[[int], None]
_Found = TypeVar("_Found")

logger = logging.getLogger(__name__)


def patiently(what: str, call: Callable[[], _Found], allowance: Allowance, pause: float = PAUSE) -> _Found:
    """Calls `call`, up to TRIES times if it fails for a reason that may pass, and returns its result. It waits `pause`
    seconds before the second try, and twice as long before each further one. `what` names the call in messages.

    Raises UnknownModel if the server refuses, and Unavailable if the last try fails, or if the allowance is used up.
    """
    tried = 1
    while True:
        allowance.check()
        try:
            return call()
        except ModelError:
            raise
        except Exception as error:  # each library has errors of its own
            allowance.check()  # whose end may be the reason
            if is_final(error):
                raise UnknownModel(f"{what} was refused: {said(error)}.") from error
            if tried == TRIES:
                raise Unavailable(f"{what} failed {tried} times, lastly: {said(error)}. Try again later.") from error
            logger.warning("%s failed: %s. It is tried again (%d of %d).", what, said(error), tried + 1, TRIES)
        time.sleep(pause * 2 ** (tried - 1))
        tried += 1


def download(origin: Origin, file: RemoteFile, directory: Path, report: Report, allowance: Allowance) -> None:
    """Downloads a file into `directory`/files, in one try. If a part of it is there already, the download continues;
    `directory`/notes has the size and tag of the content that the part belongs to.

    `report` is called with the number of bytes that are there. Raises UnknownModel if the file is larger than allowed,
    NoSpace or Unavailable as models.checkpoint.files.keeping does, Unavailable if the allowance is used up, and an
    error of the library if the connection fails.
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
            _receive(out, origin, file, report, allowance)
    if file.sha256 is not None and digest(path) != file.sha256:
        path.unlink()
        raise ConnectionError("the file was damaged in transit")


def _receive(out: FileIO, origin: Origin, file: RemoteFile, report: Report, allowance: Allowance) -> None:
    """Downloads the missing part of a file, or all of it if the server does not support ranges."""
    try:
        _write(out, origin.blocks(file, out.tell()), file, report, allowance)
    except NoRanges:
        out.truncate(0)
        out.seek(0)
        _write(out, origin.stream(file), file, report, allowance)
    if file.size is not None and (came := out.tell()) != file.size:
        if came > file.size:
            out.truncate(0)
        raise ConnectionError(f"{came} bytes were received, not {file.size}")


def _write(out: FileIO, blocks: Iterable[bytes], file: RemoteFile, report: Report, allowance: Allowance) -> None:
    for block in blocks:
        if out.tell() + len(block) > file.largest:
            raise UnknownModel(f"{file.path}: more bytes were received than the {file.largest} that were expected.")
        write(out, block)
        report(out.tell())
        allowance.check()
    os.fsync(out)
