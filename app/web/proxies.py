"""What a trusted proxy says of a request: which client sent it, and below which path the service is published.

gunicorn itself takes the scheme from a proxy that `--forwarded-allow-ips` names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

PREFIX = re.compile(r"(/[\w.~-]+)+", re.ASCII)  # not //HOST, which would lead to another site

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]


class TrustedProxies:
    """A WSGI application that sees the client of a trusted proxy as REMOTE_ADDR, and its X-Forwarded-Prefix as
    SCRIPT_NAME. Of several proxies in a row, all that are trusted are passed over."""

    def __init__(self, application: WSGI, trusted: Iterable[Any], everybody: bool) -> None:
        """`trusted` are the networks of the proxies (of `ipaddress`). With `everybody`, all peers are trusted."""
        self._application = application
        self._networks = tuple(trusted)
        self._everybody = everybody
        self.trusts = lru_cache(maxsize=1024)(self._look_up)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        peer = environ.get("REMOTE_ADDR", "")
        if self.trusts(peer):
            environ["REMOTE_ADDR"] = self._client(environ.get("HTTP_X_FORWARDED_FOR", ""), peer)
            prefix = environ.get("HTTP_X_FORWARDED_PREFIX", "").rstrip("/")
            if PREFIX.fullmatch(prefix):
                environ["SCRIPT_NAME"] = prefix + environ.get("SCRIPT_NAME", "")
        return self._application(environ, start_response)

    def _client(self, forwarded: str, peer: str) -> str:
        """The last address that a trusted proxy has seen. What stands before it may be the client's invention."""
        for address in reversed([each.strip() for each in forwarded.split(",")]):
            if not _is_address(address):
                break
            peer = address
            if not self.trusts(address):
                break
        return peer

    def _look_up(self, address: str) -> bool:
        """Whether an address is a trusted proxy's. A peer without one is connected by a socket of this machine."""
        if self._everybody or not address:
            return True
        return _is_address(address) and any(ip_address(address) in network for network in self._networks)


def _is_address(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
