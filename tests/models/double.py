"""Test doubles."""

from __future__ import annotations

from typing import Any


class Double:
    """Behaves like `original`, except for the methods and attributes that are given `instead`."""

    def __init__(self, original: Any, **instead: Any) -> None:
        self.original = original
        self.__dict__.update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)
