"""Which languages texts are in, for callers who only want to know that."""

from __future__ import annotations

from collections.abc import Sequence

from app.accounts import auth
from app.accounts.keys import Scope
from app.settings import DEFAULT_TIMEOUT
from app.translation import limits
from app.translation.context import Context
from telemetry import tracing
from text.detection import Detection


def detect(context: Context, texts: Sequence[str]) -> list[Detection]:
    """The languages that texts of one origin are in, of all that can be translated. It counts as a request, without
    characters. Raises TolkError."""
    tracing.annotate(detected=len(texts), principal=context.principal)
    auth.demand(context.key, Scope.TRANSLATE)
    limits.check_texts(texts, context.settings)
    if context.key is not None:
        context.ledger.count(context.key, context.arrival + DEFAULT_TIMEOUT)
    return context.detector.detect(texts, context.registry.languages)
