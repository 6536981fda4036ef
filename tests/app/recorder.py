"""A translator that keeps what it was asked, and two models to ask."""

from __future__ import annotations

from contextlib import AbstractContextManager

from app.translation.translator import EchoTranslator, Flight
from tasks.contract.reply import TranslateReply
from tasks.contract.request import TranslateRequest

TWO_MODELS = """
[models.fr-en]
reference = "fr-en"
pairs = [{ source = "fr", target = "en" }]
decoding = { beam = 3, length_penalty = 0.5 }

[models.many]
reference = "./many"
pairs = [{ source = "fr", target = "en" }, { source = "de", target = "en" }, { source = "en", target = "fi" }]
"""


class Recorder(EchoTranslator):
    """An echo that keeps what it was asked, and answers `reply` where there is one."""

    def __init__(self, reply: TranslateReply | None = None) -> None:
        super().__init__()
        self.reply = reply
        self.requests: list[tuple[TranslateRequest, str]] = []

    def begin(self, request_id: str, principal: str | None, caller: str = "") -> AbstractContextManager[Flight]:
        self.request_id = request_id
        return super().begin(request_id, principal, caller)

    def ask(self, request: TranslateRequest) -> TranslateReply:
        self.requests.append((request, self.request_id))
        return self.reply or super().ask(request)
