"""Who a caller is, among whom the service is shared."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from app.accounts.auth import caller
from app.accounts.keys import Key

KEY = Key(7, "mine", frozenset(), None, None, 0.0)


def from_address(address: str | None) -> Request:
    return Request({**EnvironBuilder().get_environ(), "REMOTE_ADDR": address})


def test_a_key_is_one_caller_from_wherever_it_comes() -> None:
    assert caller(from_address("192.0.2.1"), KEY) == caller(from_address("2001:db8::1"), KEY) == KEY.principal


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("127.0.0.1", "127.0.0.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "2001:db8::1", False),
    ],
)
def test_without_a_key_it_is_the_address(one: str, other: str, is_same: bool) -> None:
    assert (caller(from_address(one), None) == caller(from_address(other), None)) is is_same


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_no_address_is_told(address: str) -> None:
    assert address not in caller(from_address(address), None)


@pytest.mark.parametrize("address", [None, "", "unix:"])
def test_a_socket_without_addresses_is_one_caller(address: str | None) -> None:
    assert caller(from_address(address), None) == "local"
