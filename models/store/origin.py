"""The place that a model is fetched from, through fsspec: the hub, an object store or a web server."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from models.checkpoint.files import LARGEST_WEIGHTS, NEEDED, OPTIONAL, WEIGHTS, largest, quote
from models.errors import Unavailable, UnknownModel
from models.store.allowance import Allowance
from models.store.reference import Hosts, Remote

if TYPE_CHECKING:
    from aiohttp import ClientResponse

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
LARGEST_ARCHIVE = 12 << 30  # bytes; many archives have the weights once for each framework
REQUEST = 8 << 20  # bytes; if the connection fails, what has come of the current request is lost
TIMEOUTS = {"sock_connect": 10, "sock_read": 60}  # seconds to connect, and seconds without a byte
HEAD_TIMEOUT = 60.0  # seconds from a request to the end of the answer's headers
LOOK = 1.0  # seconds between two looks whether an answer comes fast enough

_PACKAGES = {"hf": "huggingface_hub", "https": "aiohttp", "http": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}
_TAGS = ("ETag", "etag", "blob_id", "Last-Modified")  # web and S3, Google, the hub, and if there is no other
_COMMIT = re.compile("[0-9a-f]{40}")


class NoRanges(Exception):
    """The server does not support ranges: it sends a file from its beginning only."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A remote file: our `name` for it, and its `path` at the origin.

    `size`: bytes, None if the server does not say. `largest`: the most bytes that it may have. `tag`: changes with the
    content; None if the server sends none. `sha256`: in hexadecimal digits, if the server knows it.
    """

    name: str
    path: str
    size: int | None
    largest: int
    tag: str | None
    sha256: str | None = None

    @property
    def is_resumable(self) -> bool:
        """Whether its tag tells that a part has the same content as the rest. A weak tag (RFC 9110, 8.8.1) does not."""
        return self.size is not None and self.tag is not None and not self.tag.startswith("W/")


class Origin:
    """The files of a remote model. Its methods raise the errors of several libraries; see `is_final`."""

    def __init__(
        self,
        remote: Remote,
        hosts: Hosts,
        allowance: Allowance,
        *,
        request: int = REQUEST,
        largest_weights: int = LARGEST_WEIGHTS,
    ) -> None:
        """`request`: bytes per request. `largest_weights`: the most bytes that a file of weights may have. A connection
        by http or https is closed when it is slower than `allowance` says, or when that is used up.

        Raises UnknownModel for a host that is not allowed, and Unavailable if a package is missing.
        """
        self._remote, self._request, self._largest_weights = remote, request, largest_weights
        if remote.url is not None:
            hosts.check(remote.url)
        try:
            self._files = _filesystem(remote.protocol, hosts, allowance)
        except ImportError as error:
            package = _PACKAGES[remote.protocol]
            raise Unavailable(f"{remote.reference} needs the package {package}: pip install {package}.") from error
        self._archive = next((f"archive{kind}" for kind in ARCHIVES if (remote.url or "").endswith(kind)), None)

    @property
    def is_archive(self) -> bool:
        """Whether the model is one archive, not a directory of files."""
        return self._archive is not None

    def files(self) -> list[RemoteFile]:
        """The files to fetch: those of a model, or one archive. Raises UnknownModel if a file is missing or too
        large."""
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
        """The bytes from `start` on, in blocks. Raises NoRanges if the server does not support ranges."""
        try:
            with self._files.open(file.path, block_size=self._request, cache_type="none") as stream:
                stream.seek(start)
                while block := stream.read(self._request):
                    yield block
        except ValueError as error:  # fsspec raises it if a web server is asked for a range and sends all
            raise NoRanges from error

    def stream(self, file: RemoteFile) -> Iterator[bytes]:
        """All bytes, in blocks, with one request."""
        with self._files.open(file.path, block_size=0) as stream:
            while block := stream.read(self._request):
                yield block

    @cached_property
    def _base(self) -> str:
        """The path of the model. On the hub it includes the current commit of the revision, so that all files are of
        the same commit."""
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
            cause = error.__cause__  # fsspec raises FileNotFoundError for every error of HTTP
            if cause is None or _status(cause) in (404, 410):
                return None
            raise cause from None
        if info["type"] != "file":
            return None
        tag = next((str(info[key]) for key in _TAGS if info.get(key)), None)
        most = LARGEST_ARCHIVE if name == self._archive else largest(name, weights=self._largest_weights)
        return RemoteFile(name, path, info["size"], most, tag, getattr(info.get("lfs"), "sha256", None))


def is_final(error: Exception) -> bool:
    """Whether trying again is useless, because the server has understood the request and refuses it."""
    status = _status(error)
    return isinstance(error, PermissionError) or (400 <= status < 500 and status not in (408, 425, 429))


def said(error: BaseException) -> str:
    """A library's error as a line for logs and messages, without the queries of URLs, which may contain signatures."""
    return quote(re.sub(r"\?[^\s'\"]*", "?…", str(error) or type(error).__name__)).rstrip(".")


def _status(error: BaseException) -> int:
    """The HTTP status of an error; 0 if it has none."""
    response = getattr(error, "response", None)
    found = getattr(error, "status", None) or getattr(error, "code", None) or getattr(response, "status_code", None)
    return found if isinstance(found, int) else 0


def _filesystem(protocol: str, hosts: Hosts, allowance: Allowance) -> Any:
    """A new filesystem of fsspec for every fetch, because those that fsspec caches keep their connections open."""
    if protocol == "hf":
        from huggingface_hub import HfFileSystem, constants

        hosts.check(constants.ENDPOINT)
        return HfFileSystem(skip_instance_cache=True)
    from fsspec import filesystem

    options = _web(hosts, allowance) if protocol in ("http", "https") else {}
    return filesystem(protocol, skip_instance_cache=True, use_listings_cache=False, **options)


def _web(hosts: Hosts, allowance: Allowance) -> dict[str, Any]:
    """The options of fsspec's filesystem for http and https. Every URL is checked, including those that servers
    redirect to, and every answer is watched. Proxies are taken from the environment, passwords from .netrc."""
    from aiohttp import ClientHandlerType, ClientRequest, ClientTimeout

    watches: set[asyncio.Task[None]] = set()  # the loop itself does not keep them

    async def check(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        hosts.check(str(request.url))
        response = await asyncio.wait_for(handler(request), HEAD_TIMEOUT)
        watch = asyncio.create_task(_watch(response, allowance))
        watches.add(watch)
        watch.add_done_callback(watches.discard)
        return response

    return {
        "headers": {"Accept-Encoding": "identity"},
        "client_kwargs": {
            "timeout": ClientTimeout(total=None, **TIMEOUTS),
            "middlewares": (check,),
            "trust_env": True,
        },
    }


async def _watch(response: ClientResponse, allowance: Allowance) -> None:
    """Closes the connection of an answer that comes too slowly, or when the allowance is used up; whoever reads the
    answer then gets an error."""
    since, before = time.monotonic(), 0
    while response.connection is not None:
        await asyncio.sleep(min(LOOK, allowance.window))
        elapsed, came = time.monotonic() - since, response.content.total_bytes
        is_slow = elapsed >= allowance.window and came - before < allowance.pace * elapsed
        if is_slow or allowance.is_over():
            response.close()
        elif elapsed >= allowance.window:
            since, before = time.monotonic(), came
