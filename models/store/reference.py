"""How a model is named: an embedded model, a directory, or a place elsewhere; and where models may come from."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from models.checkpoint.files import quote
from models.errors import BadInput, UnknownModel

_EMBEDDED = Path(__file__).parents[1] / "embedded"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+-]*:")
_PART = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9_.~+=,@-]+"  # of a path; no % or ?, which servers take their own way
_HUB = re.compile(r"hf:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*))?", re.A)
_WEB = re.compile(rf"(https?)://([A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{{1,5}})?)((?:/{_PART})+)/?")
_BUCKET = re.compile(rf"(s3|gs)://([a-z0-9][a-z0-9._-]*)((?:/{_PART})+)/?")
_HOST = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?|(s3|gs)://[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Remote:
    """A model elsewhere: `path` is its name in fsspec's filesystem of `protocol`, `url` what has to be allowed.

    A model of the hub has no `url`, because its library knows where the hub is, and may have a `revision`.
    """

    reference: str
    protocol: str
    path: str
    url: str | None = None
    revision: str | None = None


def parse(reference: str) -> Remote | Path:
    """Raises UnknownModel for what is no reference, and for an embedded model or a directory that is not there."""
    if not _ELSEWHERE.match(reference):
        return locate(reference)
    if found := _HUB.fullmatch(reference):
        return Remote(reference, "hf", found[1], revision=found[2])
    if found := _WEB.fullmatch(reference):
        url = reference.rstrip("/")
        return Remote(reference, found[1], url, url)
    if found := _BUCKET.fullmatch(reference):
        return Remote(reference, found[1], found[2] + found[3], f"{found[1]}://{found[2]}")
    shown = reference if not re.search("[@?#]", reference) else reference.partition(":")[0] + ":…"  # may hold a secret
    raise UnknownModel(
        f"{quote(repr(shown))} is no reference to a model. Write hf:ORG/NAME, hf:ORG/NAME@REVISION, https://HOST/PATH, "
        "s3://BUCKET/PATH or gs://BUCKET/PATH, without user, password, query, % or '..'."
    )


def locate(reference: str) -> Path:
    """The directory of an embedded model's name, or of a path, which holds a slash or starts with a dot.

    Raises UnknownModel where there is none.
    """
    said = quote(repr(reference))
    is_path = "/" in reference or reference.startswith(".")
    if not is_path and not _NAME.fullmatch(reference):
        raise UnknownModel(f"{said} is no name (letters, digits, - and _) and no directory (with a slash).")
    try:
        directory = Path(reference).expanduser() if is_path else _EMBEDDED / reference
        if directory.is_dir():
            return directory
    except (OSError, RuntimeError) as error:  # too long, not allowed; ~ of a user who is not there
        raise UnknownModel(f"{said} cannot be looked at: {quote(error).rstrip('.')}.") from error
    names = ", ".join(sorted(path.name for path in _EMBEDDED.iterdir()))
    raise UnknownModel(f"There is no model {said}. Embedded: {names}; of a directory, write ./directory.")


class Hosts:
    """Where models may come from: `HOST` for https:// on port 443, `HOST:PORT` for another, `s3://BUCKET`,
    `gs://BUCKET`."""

    def __init__(self, hosts: Iterable[str]) -> None:
        """Raises BadInput for what names no host."""
        self.names = frozenset(host.lower() for host in hosts)
        for host in self.names:
            if not _HOST.fullmatch(host):
                raise BadInput(f"{quote(repr(host))} is no host: HOST, HOST:PORT, s3://BUCKET or gs://BUCKET is.")

    def check(self, url: str) -> None:
        """Raises UnknownModel where nothing may be fetched from there; the message leaves path and query out."""
        parts = urlsplit(url)
        name = parts.hostname or ""
        if parts.scheme in ("s3", "gs"):
            host = f"{parts.scheme}://{parts.netloc}"
        elif parts.scheme == "https":
            host = name if parts.port in (None, 443) else f"{name}:{parts.port}"
        elif parts.scheme == "http" and _is_loopback(name):
            host = f"{name}:{parts.port or 80}"
        else:
            raise UnknownModel(
                f"{parts.scheme}://{name} is not encrypted: write https://. This machine alone may do so."
            )
        if host not in self.names:
            raise UnknownModel(
                f"{host} is not among the hosts that models may come from ({', '.join(sorted(self.names)) or 'none'}): "
                "allow it with TOLK_MODEL_HOSTS or --allow-host."
            )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
