"""A cache of models on disk, with a budget of bytes, shared by all processes of a host. It holds complete models only.

    models/KEY/           a model, with SHA256SUMS of its files; a process that uses it holds a shared lock on that file
    partial/KEY/          a download; the process that downloads holds the exclusive lock on the file `lock` in it
    trash/                directories that are being deleted

Locks are those of flock(2): they end with their process, however it ends. SHA256SUMS is touched whenever a process
takes the model, so its modification time says when the model was last used.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Self
from uuid import uuid4

from models.checkpoint.checksum import Checksum
from models.errors import NoSpace, Unavailable, UnknownModel

SUMS = "SHA256SUMS"
LOCK = "lock"
PAUSE = 0.2  # seconds between two attempts to take a lock

logger = logging.getLogger(__name__)


class Held:
    """A model's directory, which is not deleted until `release`. A directory outside the cache has no lock."""

    def __init__(self, directory: Path, lock: IO[bytes] | None = None, checksum: Checksum | None = None) -> None:
        self.directory = directory
        self._lock = lock
        if checksum is not None:
            self.checksum = checksum

    @cached_property
    def checksum(self) -> Checksum:
        """The checksum of the model. Raises UnknownModel as Checksum.of does."""
        return Checksum.of(self.directory)

    def release(self) -> None:
        """From now on the cache may delete the directory."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class DiskCache:
    """A cache of `budget` bytes in `directory`, for any number of threads and processes. Errors of the disk are raised
    as OSError."""

    def __init__(self, directory: Path, budget: int) -> None:
        self.directory, self.budget = directory, budget
        self._models, self._partial, self._trash = (directory / name for name in ("models", "partial", "trash"))

    def hold(self, key: str) -> Held | None:
        """A model in the cache, or None. All its files are read and compared with SHA256SUMS; a model that has changed
        counts as missing."""
        path = self._models / key
        while True:
            try:
                lock = (path / SUMS).open("rb")
            except FileNotFoundError:
                return None
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _is_at(lock, path / SUMS):
                break
            lock.close()  # another process has moved the model away in between
        held = Held(path, lock)
        try:
            if held.checksum != Checksum.parse(lock.read().decode(errors="replace")):
                raise UnknownModel(f"{path}: the files have changed since they were fetched.")
        except UnknownModel as error:
            logger.warning("A model in the cache is broken and is fetched again: %s", error)
            held.release()
            return None
        with suppress(OSError):  # the cache may be read-only
            os.utime(path / SUMS)
        return held

    @contextmanager
    def claim(self, key: str, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
        """The directory for the download of a model, with what earlier downloads left. One caller at a time has it;
        others wait, and call `check`, which may raise an error, several times a second."""
        directory = self._partial / key
        with ExitStack() as stack:
            while True:
                directory.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # it may be moved away before it is locked
                    lock = stack.enter_context((directory / LOCK).open("ab"))
                    if not _locks(lock):
                        logger.info("waiting for another process that is fetching the same model")
                        while not _locks(lock):
                            check()
                            time.sleep(PAUSE)
                    if _is_at(lock, directory / LOCK):
                        break
            yield directory

    def place(self, made: Path, key: str, checksum: Checksum) -> Held:
        """Moves a complete model, atomically and durably, to where `hold` finds it. It replaces the old one, if any."""
        (made / SUMS).write_text(checksum.lines)
        for path in (*made.iterdir(), made):
            _sync(path)
        lock = (made / SUMS).open("rb")
        fcntl.flock(lock, fcntl.LOCK_SH)
        self._models.mkdir(exist_ok=True)
        self._put_away(self._models / key)
        made.rename(self._models / key)
        _sync(self._models)
        return Held(self._models / key, lock, checksum)

    def make_room(self, needed: int) -> None:
        """Makes room for `needed` bytes. It deletes interrupted downloads first, then the least recently used models.

        Raises Unavailable if models in use fill the budget, and NoSpace if the disk is full, before it deletes any.
        """
        self._sweep()
        excess = _size(self.directory) + needed - self.budget
        with ExitStack() as locks:
            chosen, freed = [], 0
            for path in [*_oldest(self._partial, LOCK), *_oldest(self._models, SUMS)]:
                if freed >= excess:
                    break
                if locks.enter_context(_idle(path)):
                    chosen.append(path)
                    freed += _size(path)
            if needed and freed < excess:
                raise Unavailable(
                    f"{self.directory}: {needed / 1e6:.1f} MB do not fit into the {self.budget / 1e6:.1f} MB that "
                    "models may take there, beside those in use. Allow more with TOLK_MODEL_CACHE_BYTES."
                )
            free = shutil.disk_usage(self.directory).free + freed
            if free < needed:
                raise NoSpace(
                    f"{self.directory}: {needed / 1e6:.1f} MB are needed, and the disk has {free / 1e6:.1f} MB. Make "
                    "room there, or name another directory (TOLK_MODEL_CACHE)."
                )
            for path in chosen:
                logger.info("%s is deleted to make room in the cache of models", path)
                self.remove(path)

    def remove(self, path: Path) -> None:
        """Deletes a directory whose lock the caller holds. It is moved away first, so that a process which waits for
        the lock sees that the directory is gone."""
        with suppress(FileNotFoundError):  # another process may empty the trash meanwhile
            shutil.rmtree(self._put_away(path))

    def _put_away(self, path: Path) -> Path:
        """Moves a directory to the trash; processes that have opened its files can still read them."""
        self._trash.mkdir(exist_ok=True)
        away = self._trash / f"{path.name}.{uuid4().hex}"
        with suppress(FileNotFoundError):
            path.rename(away)
        return away

    def _sweep(self) -> None:
        for path in self._trash.glob("*"):
            with suppress(FileNotFoundError), _idle(path) as idle:
                if idle:
                    shutil.rmtree(path)


def _oldest(directory: Path, lock: str) -> list[Path]:
    """The entries of a directory, the least recently used first."""
    used = {path: _time(path / lock) for path in directory.glob("*")}
    return sorted(used, key=used.__getitem__)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(directory: Path) -> int:
    """Bytes of all files below a directory. Files may disappear meanwhile."""
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                size += (Path(folder) / name).lstat().st_size
    return size


@contextmanager
def _idle(directory: Path) -> Iterator[bool]:
    """Whether no process uses a model or download. If so, none can begin to until the end of the `with`."""
    with ExitStack() as stack:
        idle = True
        for name in (SUMS, LOCK):
            with suppress(FileNotFoundError):
                idle = idle and _locks(stack.enter_context((directory / name).open("r+b")))  # NFS needs write access
        yield idle


def _locks(file: IO[bytes]) -> bool:
    """Takes the exclusive lock, unless another process has a lock; returns whether it did."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync(path: Path) -> None:
    """Writes a file or directory to the disk: fsync(2)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
