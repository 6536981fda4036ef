"""One POST to an address that a caller has chosen: signed, to public addresses only, within a time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

CONNECT_TIMEOUT = 5.0  # seconds for each address of a host
TIMEOUT = 15.0  # seconds for all of a delivery
# Addresses of IPv6 that a gateway turns into one of IPv4, of whatever kind.
TRANSLATED = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))

Resolve = Callable[..., list[Any]]  # called and answering as socket.getaddrinfo


class DeliveryError(Exception):
    """A receiver has not accepted a message. The text says why. `is_final` means that it never will."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


def secret_of(service_secret: str, principal: str) -> bytes:
    """The secret that signs the messages about one principal's jobs, made from the service's own."""
    return hmac.digest(service_secret.encode(), f"webhooks {principal}".encode(), "sha256")


def spelled(secret: bytes) -> str:
    """A secret as Standard Webhooks spells it."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def signed(secret: bytes, message_id: str, body: bytes, now: float) -> dict[str, str]:
    """The headers of a message, as https://www.standardwebhooks.com specifies them. `now` is in Unix seconds."""
    content = b"%b.%d.%b" % (message_id.encode(), int(now), body)
    signature = base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(int(now)), "webhook-signature": f"v1,{signature}"}


def post(
    url: str,
    body: bytes,
    headers: dict[str, str],
    *,
    private: bool = False,
    timeout: float = TIMEOUT,
    resolve: Resolve = socket.getaddrinfo,
) -> None:
    """Sends JSON to a URL and returns if it is answered by a status 2xx. Nothing else of the answer is read.

    Unless `private` addresses are allowed, the URL has to be https, and the host's address public: the address that is
    connected to is the one that was looked at. `resolve` is asked for it once. Raises DeliveryError.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not private:
        raise DeliveryError("https was expected, and the address begins otherwise", is_final=True)
    connection = _Https if parts.scheme == "https" else _Http
    until = time.monotonic() + timeout
    client = connection(parts.hostname or "", parts.port, private=private, until=until, resolve=resolve)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # Each byte of an answer may come in time, and the answer never end.
    guard = threading.Timer(timeout, client.abort)
    guard.daemon = True
    try:
        guard.start()
        client.request("POST", path, body, {"Content-Type": "application/json", "User-Agent": "Tolk", **headers})
        status = client.getresponse().status
        if time.monotonic() >= until:  # what was cut off looks like an answer that ended
            raise TimeoutError
    except DeliveryError:
        raise
    except Exception as error:
        if time.monotonic() >= until:
            raise DeliveryError(f"there was no answer within {timeout:.0f} s") from error
        raise DeliveryError(f"{type(error).__name__}: {error}"[:300]) from error
    finally:
        guard.cancel()
        client.close()
    if 300 <= status < 400:
        raise DeliveryError(f"the answer was {status}, and redirects are not followed")
    if not 200 <= status < 300:
        raise DeliveryError(f"the answer was {status}", is_final=status == 410)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to nobody's own network, and to no machine by itself."""
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif any(ip in network for network in TRANSLATED):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class _Http(http.client.HTTPConnection):
    """A connection to an address that was looked at before."""

    def __init__(self, host: str, port: int | None, *, private: bool, until: float, resolve: Resolve) -> None:
        super().__init__(host, port)
        self._private = private
        self._until = until
        self._resolve = resolve

    @override
    def connect(self) -> None:
        found = self._resolve(self.host, self.port, type=socket.SOCK_STREAM)
        self.sock = _connect(found, private=self._private, until=self._until)

    def abort(self) -> None:
        """Has whoever waits for the receiver wait no longer."""
        if (client := self.sock) is not None:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)


class _Https(_Http):
    default_port = http.client.HTTPS_PORT

    @override
    def connect(self) -> None:
        super().connect()
        self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _connect(found: list[Any], *, private: bool, until: float) -> socket.socket:
    allowed = [each for each in found if private or is_public(str(each[4][0]))]
    if not allowed:
        raise DeliveryError("the host has a private address, or one of this machine", is_final=True)
    for last, (family, kind, protocol, _, address) in enumerate(allowed, 1 - len(allowed)):
        client = socket.socket(family, kind, protocol)
        try:
            client.settimeout(max(0.1, min(CONNECT_TIMEOUT, until - time.monotonic())))
            client.connect(address)
            client.settimeout(max(0.1, until - time.monotonic()))
        except OSError:
            client.close()
            if last == 0:
                raise
        else:
            return client
    raise AssertionError
