from __future__ import annotations

import pytest

from telemetry.address import Address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:9101", "127.0.0.1", 9101), ("web-1.local:1", "web-1.local", 1), ("[::1]:65535", "::1", 65535)],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert address == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "9101", ":9101", "host", "host:", "host:0", "host:65536", "host:-1", "::1:9101", "http://h:1", "h:1 "]
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT with a port from 1 to 65535, such as 127\.0\.0\.1:9101, not '"):
        Address.parse(text)


def test_ports_end() -> None:
    assert Address("h", 65530).after(5) == ("h", 65535)
    with pytest.raises(ValueError, match="no port is left for worker 6 after h:65530"):
        Address("h", 65530).after(6)
