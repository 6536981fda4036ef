"""A call of a translator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.engine.options import DecodingOptions
from models.engine.scheduler import Priority
from text.holds import Profile


@dataclass(frozen=True, slots=True)
class Call:
    """The texts of a call, and how to translate them. `models.local.LocalTranslator.translate` explains the fields."""

    texts: Sequence[str]
    source: str | None = None
    target: str | None = None
    options: DecodingOptions | None = None
    deadline: float = math.inf
    priority: Priority = "interactive"
    caller: str = ""
    group: str | None = None
    unwanted: Callable[[], bool] = lambda: False
    joined: bool = False
    profile: Profile = Profile.AUTO
    preserve: Sequence[str] = ()

    @property
    def characters(self) -> int:
        return sum(map(len, self.texts))
