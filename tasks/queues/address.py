"""The broker's address and the settings of TLS, from the environment."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tasks.environment import SettingsError, secret

DEFAULT = "amqp://guest:guest@127.0.0.1:5672//"


def address(environ: Mapping[str, str]) -> str:
    """CELERY_BROKER_URL, or the content of the file that CELERY_BROKER_URL_FILE names. Raises SettingsError."""
    url = secret(environ, "CELERY_BROKER_URL") or DEFAULT
    for node in url.split(";"):
        try:
            _ = urlsplit(node).port
        except ValueError:  # the message leaves out the value, which holds a password
            raise SettingsError("CELERY_BROKER_URL: a port from 0 to 65535 was expected after the host.") from None
    return url


def tls(url: str, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Celery's `broker_use_ssl` for a `url` with amqps://, None for amqp://. The certificate has to name the host.

    TOLK_BROKER_CA is a file with the certificates to trust (default: those of the system); TOLK_BROKER_CERT and
    TOLK_BROKER_KEY are the client's certificate and its key. Raises SettingsError if one of them cannot be used.
    """
    ca, cert, key = (environ.get(f"TOLK_BROKER_{name}") or None for name in ("CA", "CERT", "KEY"))
    if "amqps://" not in url.lower():
        if ca or cert or key:
            raise SettingsError("TOLK_BROKER_CA, _CERT and _KEY are for a broker whose address is amqps://.")
        return None
    host = urlsplit(url).hostname
    if host is None or ";" in url or "?" in url:  # options could switch checks off, a second host would go unchecked
        raise SettingsError("The address of a broker with amqps:// has to name one host, and must have no options.")
    if key and not cert:
        raise SettingsError("TOLK_BROKER_KEY is set without TOLK_BROKER_CERT, the certificate that it is for.")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise SettingsError(f"TOLK_BROKER_CA, {ca}, cannot be used: {error}.") from None
    try:
        if cert:
            context.load_cert_chain(cert, key, password="")  # without it, OpenSSL asks the terminal for a password
    except OSError as error:
        raise SettingsError(f"TOLK_BROKER_CERT, {cert}, and its key cannot be used: {error}.") from None
    return {
        "cert_reqs": ssl.CERT_REQUIRED,
        "ca_certs": ca,
        "certfile": cert,
        "keyfile": key,
        "server_hostname": host,  # without it, a certificate for any host would do
    }
