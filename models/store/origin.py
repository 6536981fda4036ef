"""The place that a model comes from, through fsspec: the hub, an object store, a web server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from models.checkpoint.files import LARGEST_WEIGHTS, NEEDED, OPTIONAL, WEIGHTS, largest, quote
from models.errors import Unavailable, UnknownModel
from models.store.reference import Hosts, Remote

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
LARGEST_ARCHIVE = 12 << 30  # bytes; many hold the weights once for each framework
REQUEST = 8 << 20  # bytes; a cut loses what it has of one
TIMEOUTS = {"sock_connect": 10, "sock_read": 60}  # seconds without a byte

_PACKAGES = {"hf": "huggingface_hub", "https": "aiohttp", "http": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}
_TAGS = ("ETag", "etag", "blob_id", "Last-Modified")  # of web and S3, Google, the hub; in want of another
_COMMIT = re.compile("[0-9a-f]{40}")


class NoRanges(Exception):
    """The server gives a file from its beginning only."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file by our `name`, and by its `path` there.

    `size` in bytes is None where the other side does not say it; it may be `largest`. `tag` changes with the content;
    None if there is none. `sha256` is what the other side says, hexadecimal.
    """

    name: str
    path: str
    size: int | None
    largest: int
    tag: str | None
    sha256: str | None = None

    @property
    def is_resumable(self) -> bool:
        """Whether a part of it can be told to be of the same content. A weak tag (RFC 9110, 8.8.1) cannot do that."""
        return self.size is not None and self.tag is not None and not self.tag.startswith("W/")


class Origin:
    """The files of a remote model. The libraries raise errors of every kind; `is_final` tells them apart."""

    def __init__(
        self, remote: Remote, hosts: Hosts, *, request: int = REQUEST, largest_weights: int = LARGEST_WEIGHTS
    ) -> None:
        """`request`: bytes that are asked for at once. `largest_weights`: bytes that a file of weights may have.

        Raises UnknownModel for a host that is not allowed, Unavailable where a package is missing.
        """
        self._remote, self._request, self._largest_weights = remote, request, largest_weights
        if remote.url is not None:
            hosts.check(remote.url)
        try:
            self._files = _filesystem(remote.protocol, hosts)
        except ImportError as error:
            package = _PACKAGES[remote.protocol]
            raise Unavailable(f"{remote.reference} needs the package {package}: pip install {package}.") from error
        self._archive = next((f"archive{kind}" for kind in ARCHIVES if (remote.url or "").endswith(kind)), None)

    @property
    def is_archive(self) -> bool:
        return self._archive is not None

    def files(self) -> list[RemoteFile]:
        """What is to be fetched: the files of a model, or one archive. Raises UnknownModel where something is missing
        or too large."""
        if self._archive:
            found = {self._archive: self._find(self._archive, self._remote.path)}
        else:
            found = {name: self._find(name, f"{self._base}/{name}") for name in (*NEEDED, *OPTIONAL)}
            weights = (self._find(name, f"{self._base}/{name}") for name in WEIGHTS)
            found[" or ".join(WEIGHTS)] = next(filter(None, weights), None)
        files = []
        for name, file in found.items():
            if file:
                files.append(file)
            elif name not in OPTIONAL:
                raise UnknownModel(f"{self._remote.reference}: there is no {name}.")
        for file in files:
            if file.size is not None and file.size > file.largest:
                where = f"{self._remote.reference}: {file.name}"
                raise UnknownModel(f"{where} has {file.size} bytes; at most {file.largest} were expected.")
        return files

    def blocks(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """The bytes from `start` on. Raises NoRanges, too."""
        try:
            with self._files.open(file.path, block_size=self._request, cache_type="none") as stream:
                stream.seek(start)
                while block := stream.read(self._request):
                    yield block
        except ValueError as error:  # from fsspec, of a web server that is asked for a part and sends all
            raise NoRanges from error

    def stream(self, file: RemoteFile) -> Iterator[bytes]:
        """All bytes, in one request."""
        with self._files.open(file.path, block_size=0) as stream:
            while block := stream.read(self._request):
                yield block

    @cached_property
    def _base(self) -> str:
        """For the hub with the commit that its revision is now, so that all files are of the same."""
        if self._remote.protocol != "hf":
            return self._remote.path
        revision = self._remote.revision
        if not revision or not _COMMIT.fullmatch(revision):
            from huggingface_hub import HfApi

            revision = HfApi().model_info(self._remote.path, revision=revision, timeout=TIMEOUTS["sock_read"]).sha
        return f"{self._remote.path}@{revision}"

    def _find(self, name: str, path: str) -> RemoteFile | None:
        try:
            info = self._files.info(path)
        except FileNotFoundError as error:
            cause = error.__cause__  # fsspec says of whatever happens on the web that there is no such file
            if cause is None or _status(cause) in (404, 410):
                return None
            raise cause from None
        if info["type"] != "file":
            return None
        tag = next((str(info[key]) for key in _TAGS if info.get(key)), None)
        most = LARGEST_ARCHIVE if name == self._archive else largest(name, weights=self._largest_weights)
        return RemoteFile(name, path, info["size"], most, tag, getattr(info.get("lfs"), "sha256", None))


def is_final(error: Exception) -> bool:
    """Whether trying again is of no use: the other side has understood, and says no."""
    status = _status(error)
    return isinstance(error, PermissionError) or (400 <= status < 500 and status not in (408, 425, 429))


def said(error: BaseException) -> str:
    """What a library says, fit for a log: without the queries of addresses, which hold signatures."""
    return quote(re.sub(r"\?[^\s'\"]*", "?…", str(error) or type(error).__name__)).rstrip(".")


def _status(error: BaseException) -> int:
    """Of HTTP, 0 where there is none."""
    response = getattr(error, "response", None)
    found = getattr(error, "status", None) or getattr(error, "code", None) or getattr(response, "status_code", None)
    return found if isinstance(found, int) else 0


def _filesystem(protocol: str, hosts: Hosts) -> Any:
    """fsspec's, of its own for every fetch: those that fsspec keeps would keep their connections, too."""
    if protocol == "hf":
        from huggingface_hub import HfFileSystem, constants

        hosts.check(constants.ENDPOINT)
        return HfFileSystem(skip_instance_cache=True)
    from fsspec import filesystem

    options = _web(hosts) if protocol in ("http", "https") else {}
    return filesystem(protocol, skip_instance_cache=True, use_listings_cache=False, **options)


def _web(hosts: Hosts) -> dict[str, Any]:
    """Each address is checked, also those that servers redirect to. Proxies and .netrc are taken from their usual
    places."""
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientTimeout

    async def check(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        hosts.check(str(request.url))
        return await handler(request)

    return {
        "headers": {"Accept-Encoding": "identity"},
        "client_kwargs": {
            "timeout": ClientTimeout(total=None, **TIMEOUTS),
            "middlewares": (check,),
            "trust_env": True,
        },
    }
