"""The errors of the model tier. Each carries a code, which the queue tier passes on as it is."""

from __future__ import annotations

from typing import ClassVar


class ModelError(Exception):
    """A translation that did not happen: `code` says of what kind, the message what to do."""

    code: ClassVar[str] = "INTERNAL"


class BadInput(ModelError):
    """The text or an option cannot be translated as it is."""

    code = "BAD_INPUT"


class UnknownModel(ModelError):
    """The reference leads to no model, or to one that cannot be read."""

    code = "UNKNOWN_MODEL"


class Overloaded(ModelError):
    """The engine's queue is full."""

    code = "OVERLOADED"


class DeadlineExceeded(ModelError):
    """The deadline passed before the translation was complete."""

    code = "TIMEOUT"


class Cancelled(ModelError):
    """The group was cancelled."""

    code = "CANCELLED"


class Unavailable(ModelError):
    """The engine is closing or closed and takes no work; or what a model needs cannot be had now."""

    code = "UNAVAILABLE"


class NoSpace(Unavailable):
    """The disk is full."""
