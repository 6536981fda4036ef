"""The ports of the service: chooses them, checks that they are free, and checks that something answers on them.

Standard library only.
"""

from __future__ import annotations

import errno
import http.client
import re
import socket
from collections.abc import Mapping

from launch.errors import StartError
from launch.output import Output


def web_address(environ: Mapping[str, str]) -> tuple[str, int]:
    """The address of the web tier, TOLK_HOST and PORT. Raises StartError if it is not free."""
    host, port = environ.get("TOLK_HOST") or "127.0.0.1", _port(environ, "PORT", 8000)
    reason = _taken(host, port)
    if reason is not None:
        raise StartError(f"Port {port} of {host} {reason}: choose another, as in `make run PORT={port % 65535 + 1}`.")
    return host, port


def flower_address(environ: Mapping[str, str], output: Output) -> tuple[str, int]:
    """The address of Flower: loopback and FLOWER_PORT or, if that is not free, any free port. Raises StartError if
    FLOWER_PORT is no port."""
    host, port = "127.0.0.1", _port(environ, "FLOWER_PORT", 5555)
    reason = _taken(host, port)
    if reason is None:
        return host, port
    with socket.create_server((host, 0)) as probe:
        free: int = probe.getsockname()[1]
    output.write("tolk", f"port {port} {reason}: Flower uses {free} (set FLOWER_PORT to choose one)")
    return host, free


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise StartError(f"{name} is {text!r}: a port is a number from 1 to 65535.")
    return int(text)


def _taken(host: str, port: int) -> str | None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        words = {errno.EADDRINUSE: "is in use", errno.EACCES: "is for root only"}
        return words.get(error.errno or 0, f"cannot be used ({error.strerror})")
    return None


def answer(host: str, port: int, path: str) -> str | None:
    """Asks for a path by GET. Returns None for status 200, else the error or the answer."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(500).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    finally:
        connection.close()
    return None if response.status == http.HTTPStatus.OK else f"{response.status} {body}"
