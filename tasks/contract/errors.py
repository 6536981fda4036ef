"""The errors of the domain, which both tiers know."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Why a text or a request has no translation."""

    BAD_INPUT = "BAD_INPUT"
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    UNSUPPORTED_SOURCE = "UNSUPPORTED_SOURCE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    RATE_LIMITED = "RATE_LIMITED"
    OVERLOADED = "OVERLOADED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class TolkError(Exception):
    """An error of the domain.

    `message` tells the user what to do; `retry_after` is the seconds after which a retry makes sense, None if unknown.
    """

    def __init__(self, code: Code, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
