"""Models on disk, by keys: complete or not there, in a budget of bytes, shared by all processes of a host.

    models/KEY/           a model, with SHA256SUMS of its files: a process that uses it holds a shared lock on that
    partial/KEY/          a download: the process that is at it holds the exclusive lock on `lock` in there
    trash/                what is on its way out

Locks are flock(2)'s: they end with their process, however that ends. SHA256SUMS is touched when a model is taken, so
its time says when that was last.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Self
from uuid import uuid4

from models.checkpoint.checksum import Checksum
from models.errors import NoSpace, Unavailable, UnknownModel

SUMS = "SHA256SUMS"
LOCK = "lock"

logger = logging.getLogger(__name__)


class Held:
    """A model's directory, which stays until it is released. One of the user's own has no lock: it is not ours."""

    def __init__(self, directory: Path, lock: IO[bytes] | None = None, checksum: Checksum | None = None) -> None:
        self.directory = directory
        self._lock = lock
        if checksum is not None:
            self.checksum = checksum

    @cached_property
    def checksum(self) -> Checksum:
        """Raises UnknownModel as Checksum.of does."""
        return Checksum.of(self.directory)

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class DiskCache:
    """Thread-safe, and safe for any number of processes. Where the disk fails, OSErrors are raised."""

    def __init__(self, directory: Path, budget: int) -> None:
        self.directory, self.budget = directory, budget
        self._models, self._partial, self._trash = (directory / name for name in ("models", "partial", "trash"))

    def hold(self, key: str) -> Held | None:
        """A model that is there and is what it was, for which all of it is read."""
        path = self._models / key
        while True:
            try:
                lock = (path / SUMS).open("rb")
            except FileNotFoundError:
                return None
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _is_at(lock, path / SUMS):
                break
            lock.close()  # it was put away in between
        held = Held(path, lock)
        try:
            if held.checksum != Checksum.parse(lock.read().decode(errors="replace")):
                raise UnknownModel(f"{path}: the files are not those that were fetched.")
        except UnknownModel as error:
            logger.warning("A model in the cache is broken, and is fetched again: %s", error)
            held.release()
            return None
        with suppress(OSError):  # a cache may be there to read only
            os.utime(path / SUMS)
        return held

    @contextmanager
    def claim(self, key: str) -> Iterator[Path]:
        """The directory for the parts of a model, with what is there of them. One at a time has it; others wait."""
        directory = self._partial / key
        with ExitStack() as stack:
            while True:
                directory.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # it was put away in between, as it may be before it is locked
                    lock = stack.enter_context((directory / LOCK).open("ab"))
                    if not _locks(lock):
                        logger.info("waiting for another process, which is fetching the same model")
                        fcntl.flock(lock, fcntl.LOCK_EX)
                    if _is_at(lock, directory / LOCK):
                        break
            yield directory

    def place(self, made: Path, key: str, checksum: Checksum) -> Held:
        """Moves a complete model to where `hold` finds it, in one step and for good. What was there goes."""
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
        """Room for so many bytes: what dead downloads left goes first, then models that were not used for longest.

        Raises, before anything goes, Unavailable where models in use fill the budget, NoSpace where the disk is full.
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
                    "models may have there, beside those in use. Allow more with TOLK_MODEL_CACHE_BYTES."
                )
            free = shutil.disk_usage(self.directory).free + freed
            if free < needed:
                raise NoSpace(
                    f"{self.directory}: {needed / 1e6:.1f} MB are needed, and the disk has {free / 1e6:.1f} MB. Make "
                    "room there, or name another directory (TOLK_MODEL_CACHE)."
                )
            for path in chosen:
                logger.info("%s makes room in the cache of models", path)
                self.remove(path)

    def remove(self, path: Path) -> None:
        """The caller holds the lock. The directory goes in one step, which those who wait for the lock see."""
        with suppress(FileNotFoundError):  # somebody else may sweep
            shutil.rmtree(self._put_away(path))

    def _put_away(self, path: Path) -> Path:
        """Moves a directory out of the way; processes that hold it can read on."""
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
    """What is in there, by when it was used."""
    used = {path: _time(path / lock) for path in directory.glob("*")}
    return sorted(used, key=used.__getitem__)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(directory: Path) -> int:
    """Bytes of the files in there; they may go meanwhile."""
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                size += (Path(folder) / name).lstat().st_size
    return size


@contextmanager
def _idle(directory: Path) -> Iterator[bool]:
    """Whether nobody is at it, and then nobody can be until the end."""
    with ExitStack() as stack:
        idle = True
        for name in (SUMS, LOCK):
            with suppress(FileNotFoundError):
                idle = idle and _locks(stack.enter_context((directory / name).open("r+b")))  # NFS wants to write
        yield idle


def _locks(file: IO[bytes]) -> bool:
    """Takes the exclusive lock if nobody has any."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync(path: Path) -> None:
    """To the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
