"""The errors of the model tier. Each carries a code, which the queue tier passes on unchanged."""

from __future__ import annotations

from typing import ClassVar


class ModelError(Exception):
    """A translation failed: `code` names the kind of failure, the message says what to do about it."""

    code: ClassVar[str] = "INTERNAL"


class BadInput(ModelError):
    """A text, an option or a setting is not valid."""

    code = "BAD_INPUT"


class UnknownModel(ModelError):
    """The reference names no model, or a model that cannot be read or must not be fetched."""

    code = "UNKNOWN_MODEL"


class Overloaded(ModelError):
    """The engine's queue is full."""

    code = "OVERLOADED"


class DeadlineExceeded(ModelError):
    """The deadline passed before the translation was complete."""

    code = "TIMEOUT"


class Cancelled(ModelError):
    """The group that the translation belongs to was cancelled."""

    code = "CANCELLED"


class Unavailable(ModelError):
    """The engine is closing or closed, or something that the model needs is not available now."""

    code = "UNAVAILABLE"


class NoSpace(Unavailable):
    """The disk is full."""
