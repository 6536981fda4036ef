"""Turns a model reference into a local directory. A remote model is fetched once, checked, and kept on disk.

with Store().fetch("hf:Helsinki-NLP/opus-mt-fr-de") as held:
    print(held.directory, held.checksum)
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path
from urllib.parse import urlsplit

from models.checkpoint.archive import unpack
from models.checkpoint.checksum import Checksum, check_syntax
from models.checkpoint.files import LARGEST_WEIGHTS, keeping, weights_path
from models.errors import BadInput, NoSpace, Unavailable, UnknownModel
from models.store.allowance import Allowance
from models.store.diskcache import DiskCache, Held
from models.store.download import PAUSE, TRIES, download, patiently
from models.store.origin import REQUEST, Origin
from models.store.progress import Progress
from models.store.reference import Hosts, Remote, parse

BUDGET = 20_000_000_000  # bytes on disk
HOSTS = ("huggingface.co",)

logger = logging.getLogger(__name__)


class Store:
    """Fetches models and keeps them. Thread-safe; all processes that name the same directory share it."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        budget: int = BUDGET,
        hosts: Iterable[str] = HOSTS,
        largest_weights: int = LARGEST_WEIGHTS,
        request: int = REQUEST,
        pause: float = PAUSE,
        allowance: Callable[[Callable[[], bool]], Allowance] = Allowance,
        progress: Callable[[str, int], Progress] = Progress,
    ) -> None:
        """Writes nothing yet. `directory`: by default `tolk` in the user's cache directory. `budget`: bytes on disk.
        `hosts`: those that models may be fetched from (models.store.reference.Hosts). `largest_weights`: the most bytes
        of a file of weights. `request`: bytes per request. `pause`: seconds before a failed request is tried again.
        `allowance`: makes the allowance of a download that somebody waits for. `progress`: shows its progress.

        Raises BadInput for a budget that is not positive, or a malformed host.
        """
        if budget <= 0:
            raise BadInput(f"The budget of the cache of models is {budget} bytes; more than 0 were expected.")
        self._directory, self._budget, self._hosts = directory, budget, Hosts(hosts)
        self._largest_weights, self._request, self._progress = largest_weights, request, progress
        self._pause, self._allowance = pause, allowance

    def find(self, reference: str, checksum: str | None = None) -> Held | str:
        """As `fetch`, but the host to fetch the model from if it is not on this machine. Waits for no network."""
        check_syntax(checksum)
        place = parse(reference)
        if isinstance(place, Path):
            return self.fetch(reference, checksum)
        with keeping(self._cache.directory):
            return self._held(_key(reference), checksum) or urlsplit(place.url or "").netloc or place.protocol

    def fetch(self, reference: str, checksum: str | None = None, wanted: Callable[[], bool] = lambda: True) -> Held:
        """The directory of a model, which is not deleted until it is released. A download is given up when it is no
        longer `wanted`.

        A model in the cache is not fetched again. Raises UnknownModel if the reference names no model, or a model that
        cannot be read, has another checksum, or is on a host that is not allowed; Unavailable if the model cannot be
        fetched now; BadInput for a malformed checksum.
        """
        check_syntax(checksum)
        place = parse(reference)
        if isinstance(place, Path):
            own = Held(place)
            if checksum is not None:
                _compare(reference, own.checksum, checksum)
            return own
        key = _key(reference)
        with keeping(self._cache.directory):  # errors of the disk; `patiently` handles those of the origin
            if held := self._held(key, checksum):
                return held
            allowance = self._allowance(wanted)
            with self._cache.claim(key, allowance.check) as parts:
                return self._held(key, checksum) or self._fetch(place, key, parts, checksum, allowance)

    @cached_property
    def _cache(self) -> DiskCache:
        """Created when it is needed, because embedded models need no cache, and there may be no home directory."""
        try:
            return DiskCache((self._directory or _user_cache()).expanduser().absolute(), self._budget)
        except RuntimeError as error:
            raise BadInput("There is no home directory for models: name a directory (TOLK_MODEL_CACHE).") from error

    def _held(self, key: str, checksum: str | None) -> Held | None:
        held = self._cache.hold(key)
        if held and checksum not in (None, str(held.checksum)):
            logger.info("%s has checksum %s; it is fetched again", held.directory, held.checksum)
            held.release()
            return None
        return held

    def _fetch(self, remote: Remote, key: str, parts: Path, checksum: str | None, allowance: Allowance) -> Held:
        """Downloads, checks and places a model. If a download is interrupted, its part is kept for the next one; if the
        model is refused, or the disk fails, it is deleted."""
        try:
            made = self._download(remote, parts, allowance)
            found = Checksum.of(made)
            if checksum is not None:
                _compare(remote.reference, found, checksum)
            _check(made)
            for path in made.iterdir():
                if path.name not in found.digests:  # weights in the other format
                    path.unlink()
            held = self._cache.place(made, key, found)
        except (UnknownModel, NoSpace, OSError):
            self._cache.remove(parts)
            raise
        self._cache.remove(parts)
        self._cache.make_room(0)
        return held

    def _download(self, remote: Remote, parts: Path, allowance: Allowance) -> Path:
        """The directory with the files of the model. If a file changes at the origin meanwhile, it starts again."""
        directory = parts / "files"
        for name in (directory, parts / "notes"):
            name.mkdir(exist_ok=True)
        origin = Origin(remote, self._hosts, allowance, request=self._request, largest_weights=self._largest_weights)
        keep_trying = partial(patiently, allowance=allowance, pause=self._pause)
        for _ in range(TRIES):
            files = keep_trying(f"Looking at {remote.reference}", origin.files)
            for path in directory.iterdir():
                if path.name not in {file.name for file in files}:
                    path.unlink()
            total = sum(file.size or 0 for file in files)
            there = sum(path.stat().st_size for path in directory.iterdir())
            self._cache.make_room(max(0, total * (2 if origin.is_archive else 1) - there))
            with self._progress(remote.reference, total) as progress:
                for file in files:
                    report = partial(progress.report, file.name)
                    fetch = partial(download, origin, file, parts, report, allowance)
                    keep_trying(f"Fetching {file.name} of {remote.reference}", fetch)
            if keep_trying(f"Looking at {remote.reference}", origin.files) == files:
                break
            logger.warning("%s changed while it was fetched", remote.reference)
        else:
            raise Unavailable(f"{remote.reference} changed again and again while it was fetched. Try again later.")
        if not origin.is_archive:
            return directory
        unpacked = parts / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        unpack(directory / files[0].name, unpacked, largest_weights=self._largest_weights)
        return unpacked


def _compare(reference: str, found: Checksum, wanted: str) -> None:
    if str(found) != wanted:
        raise UnknownModel(f"{reference} has checksum {found}; {wanted} was expected.")


def _check(directory: Path) -> None:
    """Raises UnknownModel if the tokenizer or the weights cannot be read."""
    from models.checkpoint.weights import read_weights
    from models.tokenizer import Tokenizer  # these import torch and SentencePiece

    Tokenizer.load(directory)
    try:
        read_weights(weights_path(directory))
    except MemoryError as error:
        raise Unavailable("There is not enough memory to check the weights.") from error


def _key(reference: str) -> str:
    """A readable and unique name for the directory of a reference."""
    return f"{re.sub('[^A-Za-z0-9.]+', '-', reference)[:80]}-{hashlib.sha256(reference.encode()).hexdigest()[:12]}"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tolk"
