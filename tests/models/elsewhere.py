"""A web server on this machine that models are fetched from. It can be told to misbehave, and also implements the
interfaces of the hub and of Google's storage."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from models.store.store import Store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "model.safetensors"
BLOCK = 16384  # bytes per request of the stores in tests


def hasty(directory: Path, **how: Any) -> Store:
    """A store with small requests that hardly waits before it tries again."""
    return Store(directory, request=BLOCK, pause=0.001, **how)


class Asked(NamedTuple):
    """A request; `start` is where its range begins."""

    method: str
    path: str
    start: int
    token: str | None


@dataclass
class Server:
    """`files`: the files by path. `damaged`: content that is sent instead of that of a file.

    `cuts`: each cuts one response with weights off after so many bytes. `statuses`: each is the answer to one of the
    next requests.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    damaged: dict[str, bytes] = field(default_factory=dict)
    trickles: bool = False  # sends weights byte by byte, five a second
    redirects: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    has_ranges: bool = True
    has_sizes: bool = True
    has_tags: bool = True
    asked: list[Asked] = field(default_factory=list)
    sent: int = 0  # bytes of weights
    before: Callable[[Asked], object] = lambda asked: None
    going: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def put(self, directory: Path, under: str = "/model") -> str:
        """Serves the files of a directory; returns the reference to them."""
        self.files |= {f"{under}/{path.name}": path.read_bytes() for path in directory.iterdir()}
        return self.url + under

    def stop_at(self, start: int) -> threading.Event:
        """Holds requests for weights from `start` on until `go_on`. The event is set when there is such a request."""
        reached = threading.Event()

        def stop(asked: Asked) -> None:
            if asked.method == "GET" and asked.path.endswith(WEIGHTS) and asked.start >= start:
                reached.set()
                self.going.wait()

        self.going.clear()
        self.before = stop
        return reached

    def go_on(self) -> None:
        self.going.set()

    def downloads(self) -> list[Asked]:
        """The GET requests for weights."""
        return [asked for asked in self.asked if asked.method == "GET" and asked.path.endswith(WEIGHTS)]


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    class Handler(_Handler):
        state = server

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise every response takes 40 ms

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        start, _, end = (self.headers["Range"] or "").removeprefix("bytes=").partition("-")
        asked = Asked(self.command, path, int(start or 0), self.headers["Authorization"])
        self.state.asked.append(asked)
        self.state.before(asked)
        if self.state.statuses:
            return self._answer(self.state.statuses.pop(0))
        if path in self.state.redirects:
            return self._answer(302, Location=self.state.redirects[path])
        plain = re.sub(_ALIASES, r"/\1\2/", path, count=1)
        content = self.state.damaged.get(plain) or self.state.files.get(plain)
        if content is None:
            content = _hub(self.state.files, path) or _google(self.state.files, path)
        if content is None:
            return self._answer(404)
        tag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{tag}"'} if self.state.has_tags else {}
        if not self.state.has_sizes:
            return self._answer(200, content, path, Connection="close", **headers)
        if not self.state.has_ranges or not self.headers["Range"]:
            return self._answer(200, content, path, **{"Content-Length": str(len(content)), **headers})
        part = content[asked.start : int(end) + 1 if end else None]
        headers |= {"Content-Range": f"bytes {asked.start}-{asked.start + len(part) - 1}/{len(content)}"}
        return self._answer(206, part, path, **{"Content-Length": str(len(part)), **headers})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int, content: bytes = b"", path: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in (({} if content else {"Content-Length": "0"}) | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if path.endswith(WEIGHTS):
            if self.state.cuts and (cut := self.state.cuts.pop(0)) < len(content):
                content, self.close_connection = content[:cut], True
            self.state.sent += len(content)
        self.close_connection = self.close_connection or headers.get("Connection") == "close"
        with suppress(ConnectionError):
            while self.state.trickles and path.endswith(WEIGHTS) and content:
                self.wfile.write(content[:1])
                content = content[1:]
                time.sleep(0.2)
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


_ALIASES = re.compile(r"^/(?:download/storage/v1/b/([^/]+)/o|([^/]+/[^/]+)/resolve/[^/]+)/")  # paths of files


def _hub(files: dict[str, bytes], path: str) -> bytes | None:
    """The interface of a hub whose models have one commit, which is that of main."""
    if not (found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+|/tree/[^/]+)?", path)):
        return None
    under = f"/{found[1]}/"
    there = {name.removeprefix(under): content for name, content in files.items() if name.startswith(under)}
    if not there or (found[2] or "").rpartition("/")[2] not in ("", "main", COMMIT):
        return None
    if not (found[2] or "").startswith("/tree"):
        return json.dumps({"id": found[1], "sha": COMMIT, "siblings": []}).encode()
    return json.dumps([_blob(name, content) for name, content in there.items()]).encode()


def _blob(name: str, content: bytes) -> dict[str, object]:
    sha256 = hashlib.sha256(content).hexdigest()
    large = {"lfs": {"oid": sha256, "size": len(content), "pointerSize": 130}} if name == WEIGHTS else {}
    return {"type": "file", "path": name, "size": len(content), "oid": sha256[:40], **large}


def _google(files: dict[str, bytes], path: str) -> bytes | None:
    """Google's JSON interface: an object's metadata, and a listing that is always empty."""
    if not (found := re.fullmatch(r"/storage/v1/b/([^/]+)/o(?:/(.+))?", path)):
        return None
    if not found[2]:
        return b"{}"
    if (content := files.get(f"/{found[1]}/{found[2]}")) is None:
        return None
    moment = "2026-01-01T00:00:00.000Z"
    described = {"bucket": found[1], "name": found[2], "size": str(len(content)), "updated": moment}
    tag = hashlib.sha256(content).hexdigest()
    return json.dumps({**described, "timeCreated": moment, "generation": "1", "etag": tag}).encode()
