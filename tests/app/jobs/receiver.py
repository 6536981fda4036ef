"""An address that jobs call back."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override


class Receiver(ThreadingHTTPServer):
    """Answers as the path says, and keeps what it was sent: paths, headers and bodies."""

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        super().__init__((host, 0), Handler)
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.released = threading.Event()
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"http://{host}:{self.server_port}" if tls is None else f"https://localhost:{self.server_port}"

    @override
    def handle_error(self, *_: Any) -> None:
        """A client that refuses the certificate is no error."""

    @contextmanager
    def running(self) -> Iterator[Receiver]:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield self
        finally:
            self.released.set()
            self.shutdown()
            self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append((self.path, headers, body))
        if self.path == "/hangs":
            self.server.released.wait(20)
            return
        if self.path == "/drips":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            with suppress(OSError):
                while not self.server.released.wait(0.05):
                    self.wfile.write(b"X")
            return
        self.send_response({"/fails": 500, "/moved": 302, "/gone": 410}.get(self.path, 204))
        if self.path == "/moved":
            self.send_header("Location", "/target")
        self.end_headers()

    @override
    def log_message(self, *_: object) -> None:
        pass


def is_signed(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """Whether `secret`, which begins with whsec_, has signed a message, as https://www.standardwebhooks.com has a
    receiver check it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}".encode()
    expected = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return headers["webhook-signature"] == f"v1,{expected}"
