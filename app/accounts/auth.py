"""Authentication of requests by API keys, which are sent as bearer tokens (RFC 6750)."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address, ip_network

from flask import Request

from app.accounts.keys import Key, KeyRing, Scope
from tasks.contract.errors import Code, TolkError

# What proxies add to a request, as WSGI names it. Whoever it comes from, it does not come from this machine.
FORWARDED = frozenset(
    f"HTTP_{name}"
    for name in (
        "FORWARDED", "VIA", "X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PORT", "X_FORWARDED_PREFIX",
        "X_FORWARDED_PROTO", "X_FORWARDED_PROTOCOL", "X_FORWARDED_SCHEME", "X_FORWARDED_SERVER", "X_FORWARDED_SSL",
        "X_FORWARDED_URI", "X_ORIGINAL_FORWARDED_FOR", "X_REAL_IP", "X_CLIENT_IP", "X_CLUSTER_CLIENT_IP",
        "TRUE_CLIENT_IP", "CF_CONNECTING_IP", "X_PROXYUSER_IP", "FORWARDED_FOR", "X_ENVOY_EXTERNAL_ADDRESS",
    )
)  # fmt: skip
MAKE_ONE = "An operator makes keys: flask --app app keys create NAME."


def authenticate(request: Request, keys: KeyRing, *, local: bool) -> Key | None:
    """The API key of a request. None if it needs no key: if it comes from this machine, the service listens to this
    machine only (`local`), and no key was ever made.

    Raises TolkError(UNAUTHENTICATED) if the key is missing or wrong.
    """
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        key = keys.find(secret.strip())
        if key is None:
            raise TolkError(Code.UNAUTHENTICATED, f"This API key is wrong, or was revoked. {MAKE_ONE}")
        return key
    if local and _is_local(request) and not keys.exist():
        return None
    raise TolkError(
        Code.UNAUTHENTICATED, f"An API key is needed. Send it as the header Authorization: Bearer KEY. {MAKE_ONE}"
    )


def caller(request: Request, key: Key | None) -> str:
    """Names the caller of a request, among whom the service is shared: by its API key, else by its address.

    An address is hashed, because the name goes to workers and into their queues. Of an IPv6 address the first 64 bits
    count, because who has one address there has all that begin with them.
    """
    if key is not None:
        return key.principal
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:  # a socket of this machine that has no address
        return "local"
    network = ip_network((address, 64), strict=False) if address.version == 6 else address
    return f"address:{sha256(str(network).encode()).hexdigest()[:16]}"


def demand(key: Key | None, scope: Scope) -> None:
    """Raises TolkError(FORBIDDEN) if there is a key and it lacks the scope."""
    if key is not None and scope not in key.scopes:
        raise TolkError(Code.FORBIDDEN, f"The API key {key.name!r} has no scope `{scope}`: take another key.")


def _is_local(request: Request) -> bool:
    """Whether a request comes from this machine, through no proxy, and names it as its host. A page of another site can
    point its own domain name at this machine (DNS rebinding), so the address alone is not enough."""
    if not FORWARDED.isdisjoint(request.environ):
        return False
    name = request.host.removeprefix("[").partition("]")[0] if "[" in request.host else request.host.partition(":")[0]
    return is_loopback(request.remote_addr or "") and is_loopback(name)


@lru_cache
def is_loopback(host: str) -> bool:
    """Whether a host name or address stands for the machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
