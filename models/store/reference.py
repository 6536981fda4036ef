"""References to models (an embedded model, a directory, a remote model), and the hosts that models may come from."""

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
_PART = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9_.~+=,@-]+"  # of a path; no % or ?, which servers treat differently
_HUB = re.compile(r"hf:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*))?", re.A)
_LIKE_HUB = re.compile(r"(?:\A|/)([A-Za-z0-9][\w-]*)/([A-Za-z0-9][\w.-]*)\Z", re.A)  # ORG/NAME, perhaps made absolute
_HUB_PAGE = re.compile(r"https://(?:www\.)?huggingface\.co/([\w.-]+/[\w.-]+)(?:/tree/([\w./-]+?))?/?", re.A)
_WEB = re.compile(rf"(https?)://([A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{{1,5}})?)((?:/{_PART})+)/?")
_BUCKET = re.compile(rf"(s3|gs)://([a-z0-9][a-z0-9._-]*)((?:/{_PART})+)/?")
_HOST = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?|(s3|gs)://[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote model. `path` is its path in fsspec's filesystem for `protocol`; the host or bucket of `url` has to be
    allowed (Hosts).

    A model on the hub may have a `revision`. It has no `url`, because the hub's library knows the hub's address.
    """

    reference: str
    protocol: str
    path: str
    url: str | None = None
    revision: str | None = None


def parse(reference: str) -> Remote | Path:
    """Parses a reference: a remote model becomes a Remote, any other its directory. The address of a model's page on
    the hub stands for the model.

    Raises UnknownModel for a malformed reference, and for an embedded model or a directory that does not exist.
    """
    if not _ELSEWHERE.match(reference):
        return locate(reference)
    page = _HUB_PAGE.fullmatch(reference)  # copied from a browser: the hub has no files there
    if found := _HUB.fullmatch(f"hf:{page[1]}" + (f"@{page[2]}" if page[2] else "") if page else reference):
        return Remote(reference, "hf", found[1], revision=found[2])
    if found := _WEB.fullmatch(reference):
        url = reference.rstrip("/")
        return Remote(reference, found[1], url, url)
    if found := _BUCKET.fullmatch(reference):
        return Remote(reference, found[1], found[2] + found[3], f"{found[1]}://{found[2]}")
    shown = reference if not re.search("[@?#]", reference) else reference.partition(":")[0] + ":…"  # may be secret
    raise UnknownModel(
        f"{quote(repr(shown))} is not a reference to a model. Write hf:ORG/NAME, hf:ORG/NAME@REVISION, "
        "https://HOST/PATH, s3://BUCKET/PATH or gs://BUCKET/PATH, without user, password, query, % or '..'."
    )


def locate(reference: str) -> Path:
    """The directory of an embedded model, given by name, or of a path, which contains a slash or starts with a dot.

    Raises UnknownModel if there is no such directory.
    """
    said = quote(repr(reference))
    is_path = "/" in reference or reference.startswith(".")
    if not is_path and not _NAME.fullmatch(reference):
        raise UnknownModel(f"{said} is neither a name (letters, digits, - and _) nor a directory (with a slash).")
    try:
        directory = Path(reference).expanduser() if is_path else _EMBEDDED / reference
        if directory.is_dir():
            return directory
    except (OSError, RuntimeError) as error:  # too long, not permitted, or ~ of an unknown user
        raise UnknownModel(f"{said} cannot be read: {quote(error).rstrip('.')}.") from error
    found = _LIKE_HUB.search(reference)
    names = ", ".join(sorted(path.name for path in _EMBEDDED.iterdir()))
    hint = f" If it is a model of the Hugging Face hub, write hf:{'/'.join(found.groups())}." if found else ""
    raise UnknownModel(f"There is no model {said}. Embedded: {names}; for a directory, write ./directory.{hint}")


class Hosts:
    """The hosts that models may come from: `HOST` for https:// on port 443, `HOST:PORT` for another port,
    `s3://BUCKET`, `gs://BUCKET`."""

    def __init__(self, hosts: Iterable[str]) -> None:
        """Raises BadInput for a malformed host."""
        self.names = frozenset(host.lower() for host in hosts)
        for host in self.names:
            if not _HOST.fullmatch(host):
                raise BadInput(f"{quote(repr(host))} is not a host: write HOST, HOST:PORT, s3://BUCKET or gs://BUCKET.")

    def check(self, url: str) -> None:
        """Raises UnknownModel if nothing may be fetched from this URL. The message leaves out its path and query."""
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
                f"{parts.scheme}://{name} is not encrypted: write https://. Only this machine may be asked by http://."
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
