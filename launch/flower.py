"""Flower, for pages that this machine's own names open: `python -m launch.flower -A tasks flower --address=127.0.0.1`.

A page of another site can point its own domain name at this machine (DNS rebinding). Its reader's browser would then
show it Flower's pages, which need no password. Flower itself answers whatever name it is called by.
"""

from __future__ import annotations

import sys
from ipaddress import ip_address
from typing import Any

from celery.__main__ import main
from flower import command
from flower.app import Flower
from tornado.httputil import HTTPServerRequest
from tornado.web import ErrorHandler


class LocalFlower(Flower):
    """Flower that refuses requests to other names than this machine's own, with 403."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        if not is_local(request.host_name):
            return self.get_handler_delegate(request, ErrorHandler, {"status_code": 403})
        return super().find_handler(request, **kwargs)


def is_local(host: str) -> bool:
    """Whether a host name or address, an IPv6 address also in brackets, stands for the machine itself."""
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


if __name__ == "__main__":
    command.Flower = LocalFlower
    sys.exit(main())
