"""Reads and checks models.toml, and reads it again when it changes."""

from __future__ import annotations

import logging
import re
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

from tasks.contract.errors import TolkError
from tasks.contract.names import ON_DEMAND
from tasks.contract.request import RequestOptions
from tasks.registry.entry import PRECISIONS, Entry, Pair, RegistryError
from tasks.registry.ways import Registry
from text.languages import canonical

LOOK = 1.0  # seconds between two checks of whether the file has changed
_EMBEDDED = r"[A-Za-z0-9_-]+"
_HUB = r"hf:[\w.-]+/[\w.-]+(@[\w./-]+)?"
_ADDRESS = r"(https?|s3|gs)://[^\s/@?#%]+/[^\s?#%]+"  # without user and query, which may contain secrets
LONGEST_NOTE = 300  # characters
_KEYS = {"reference", "pairs", "decoding", "precision", "warm", "checksum", "example", "note"}
logger = logging.getLogger(__name__)


def load_registry(path: Path) -> Registry:
    """The models of a models.toml. Raises RegistryError if the file is missing, is not TOML, or has a wrong entry."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise RegistryError(f"{path}: is not TOML, which is UTF-8: {error}. Save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"{path}: is not TOML: {error}.") from error
    _check_keys(document, {"models"}, {"models"}, str(path))
    entries = document["models"]
    if not isinstance(entries, dict) or not entries:
        raise RegistryError(f"{path}: has no [models.NAME] entry.")
    return Registry({name: _model(name, entry, path) for name, entry in entries.items()})


class RegistryFile:
    """A models.toml that is read again when it changes. Thread-safe."""

    def __init__(self, path: Path, look: float = LOOK) -> None:
        """`look`: seconds between two checks of the file. Raises RegistryError as load_registry does."""
        self.path, self.look = path, look
        self._lock = threading.Lock()
        self._seen = _identity(path)
        self._registry = load_registry(path)
        self._complaint = ""  # why the file cannot be used
        self._outdated = time.monotonic() + self.look

    def current(self) -> Registry:
        """The models of the file, at most `look` seconds old.

        If the file has become unusable, which is logged, the models that it named before.
        """
        if time.monotonic() >= self._outdated and self._lock.acquire(blocking=False):
            try:  # only one caller reads the file: a thousand models take a tenth of a second
                self._look()
                self._outdated = time.monotonic() + self.look
            finally:
                self._lock.release()
        return self._registry

    def latest(self) -> Registry:
        """As `current`, but checks the file now."""
        with self._lock:
            self._look()
        return self._registry

    def _look(self) -> None:
        seen = _identity(self.path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._registry = load_registry(self.path)
        except RegistryError as error:
            if str(error) != self._complaint:
                logger.error("%s The models that it named before stay in use.", error)
            self._complaint = str(error)
            if isinstance(error.__cause__, OSError):  # the reason may pass, while the file stays as it is
                self._seen = None
        else:
            self._complaint = ""
            logger.info("%s has changed: it has %d models now.", self.path, len(self._registry.models))


def _identity(path: Path) -> object:
    """A value that changes when the file is written or replaced, also through a symbolic link; None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _model(name: str, entry: Any, path: Path) -> Entry:
    where = f"{path}: [models.{name}]"
    if not name or set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"):
        raise RegistryError(f"{where}: a model's name may have only letters, digits, - and _.")
    if name == ON_DEMAND:
        raise RegistryError(f"{where}: this name is reserved for the queues of models on demand; choose another name.")
    _check_keys(entry, {"reference", "pairs"}, _KEYS, where)
    reference = entry["reference"]
    if not isinstance(reference, str) or not reference:
        raise RegistryError(
            f"{where}: reference has to be an embedded model's name, a directory, hf:ORG/NAME, or an address."
        )
    precision, checksum, example, note = map(entry.get, ("precision", "checksum", "example", "note"))
    if precision not in (None, *PRECISIONS):
        raise RegistryError(f"{where}: precision has to be one of {', '.join(PRECISIONS)}.")
    if type(entry.get("warm", True)) is not bool:
        raise RegistryError(f"{where}: warm has to be true, or false for a model on demand.")
    if checksum is not None and not (isinstance(checksum, str) and re.fullmatch("sha256:[0-9a-f]{64}", checksum)):
        raise RegistryError(
            f"{where}: checksum has to be sha256: and 64 hexadecimal digits, as `python -m models info` prints it."
        )
    if example is not None and not (isinstance(example, str) and example.strip()):
        raise RegistryError(f"{where}: example has to be a text that the model can translate.")
    if note is not None and not (isinstance(note, str) and 0 < len(note.strip()) <= LONGEST_NOTE):
        raise RegistryError(f"{where}: note has to be a sentence of at most {LONGEST_NOTE} characters.")
    pairs = entry["pairs"]
    if not isinstance(pairs, list) or not pairs:
        raise RegistryError(f'{where}: pairs has to be a list such as [{{ source = "fr", target = "en" }}].')
    return Entry(
        name=name,
        reference=_locate(reference, path.parent, where),
        pairs=tuple(_pair(pair, where) for pair in pairs),
        decoding=_decoding(entry.get("decoding", {}), where),
        precision=precision,
        warm=entry.get("warm", True),
        checksum=checksum,
        example=example,
        note=note,
    )


def _locate(reference: str, base: Path, where: str) -> str:
    """The reference, with a directory made absolute: one has a slash or starts with a dot, relative to `base`."""
    if any(re.fullmatch(form, reference, re.ASCII) for form in (_EMBEDDED, _HUB, _ADDRESS)):
        return reference
    if ":" in reference or (not reference.startswith(".") and "/" not in reference):
        shown = reference.partition(":")[0] + ":…" if re.search("[@?#%]", reference) else reference
        raise RegistryError(
            f"{where}: reference {shown!r} is neither an embedded model's name nor a ./directory, hf:ORG/NAME, or an "
            "address with https://, s3:// or gs://."
        )
    try:
        return str((base / reference).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of symbolic links, or a NUL
        raise RegistryError(f"{where}: reference cannot be resolved: {error}.") from error


def _pair(pair: Any, where: str) -> Pair:
    _check_keys(pair, {"source", "target"}, {"source", "target", "token"}, f"{where}: pairs")
    if not all(isinstance(value, str) and value for value in pair.values()):
        raise RegistryError(f"{where}: source, target and token of a pair have to be strings that are not empty.")
    return Pair(**{**pair, "source": canonical(pair["source"]), "target": canonical(pair["target"])})


def _decoding(decoding: Any, where: str) -> RequestOptions:
    _check_keys(decoding, set(), {"beam", "length_penalty"}, f"{where}: decoding")
    try:
        unset = [name for name in ("beam", "length_penalty") if name not in decoding]
        return RequestOptions.decode({"beam": 1, "nbest": 1, "length_penalty": 1.0, **decoding, "unset": unset})
    except TolkError as error:
        raise RegistryError(f"{where}: decoding: {error.message}") from error


def _check_keys(table: Any, required: set[str], allowed: set[str], where: str) -> None:
    if not isinstance(table, dict):
        raise RegistryError(f"{where}: a table was expected.")
    if missing := required - table.keys():
        raise RegistryError(f"{where}: {', '.join(sorted(missing))} is missing.")
    if unknown := table.keys() - allowed:
        raise RegistryError(
            f"{where}: {', '.join(sorted(unknown))} is unknown; known keys are {', '.join(sorted(allowed))}."
        )
