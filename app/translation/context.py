"""The context of one request to the APIs."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.accounts.keys import Key
from app.accounts.ledger import Ledger
from app.accounts.repeats import Repeats
from app.monitoring.recent_errors import RecentErrors
from app.settings import Settings
from app.translation.translator import Translator
from tasks.registry.ways import Registry
from text.detection import Detector


@dataclass(frozen=True, slots=True)
class Context:
    """What the APIs need to answer one request. `arrival` is in Unix seconds; `key` is None if none is needed.

    `caller` names whose share of the service the request takes (app.accounts.auth.caller).
    """

    settings: Settings
    registry: Registry
    translator: Translator
    request_id: str
    arrival: float
    key: Key | None
    caller: str
    ledger: Ledger
    repeats: Repeats
    recent_errors: RecentErrors
    detector: Detector = field(default_factory=Detector)

    @property
    def principal(self) -> str | None:
        """Identifies the caller in messages and tables; None without a key."""
        return None if self.key is None else self.key.principal
