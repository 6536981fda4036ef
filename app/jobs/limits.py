"""What a job may be, and what a call about one may hold. Every check raises TolkError(BAD_INPUT)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.accounts import idempotency
from app.jobs.job import LONGEST
from app.settings import Settings
from app.translation import limits
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import Priority
from tasks.contract.request import Lines

CALL_TEXTS = 2_000  # texts of one call, at most
JOB_TEXTS = 1_000_000  # texts of one job, at most
UNFINISHED = 100  # jobs of one owner that have not ended, at most
PAGE = 1_000  # jobs or translations of a page, at most
URL_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that a caller asks for. `deadline` is in Unix seconds. An `open` job takes more texts until it is
    started."""

    texts: Sequence[str]
    target: str
    source: str | None = None
    model: str | None = None
    assume: str | None = None
    lines: Lines = Lines.KEEP
    priority: Priority = "bulk"
    deadline: float | None = None
    callback_url: str | None = None
    idempotency_key: str | None = None
    open: bool = False

    def hash(self) -> str:
        """A hash of the input: what a repeat with the same idempotency key has to have in common."""
        input = [list(self.texts), self.source, self.target, self.model, self.assume, self.lines, self.priority]
        return hashlib.sha256(json.dumps([*input, self.deadline, self.callback_url, self.open]).encode()).hexdigest()


def check_submission(wanted: Submission, settings: Settings) -> None:
    """All that can be said without the registry of models and the database."""
    check_call(wanted.texts)
    limits.check_names(source=wanted.source, target=wanted.target, model=wanted.model, assume=wanted.assume)
    if wanted.idempotency_key is not None:
        idempotency.check_key(wanted.idempotency_key)
    if not wanted.texts and not wanted.open:
        raise refusal("texts: at least one was expected, or open: true for a job that gets its texts by appendTexts.")
    if wanted.priority == "interactive":
        if wanted.open:
            raise refusal("priority: an INTERACTIVE job brings all its texts at once. Leave out `open`, or take BULK.")
        limits.check_texts(wanted.texts, settings)
    now = time.time()
    if wanted.deadline is not None and not now < wanted.deadline <= now + LONGEST:
        raise refusal(f"deadline: a time within the next {LONGEST / 86_400:.0f} days was expected.")
    if wanted.callback_url is not None and not _is_url(wanted.callback_url):
        raise refusal("callbackUrl: an address such as https://host/path was expected.")


def check_call(texts: Sequence[str]) -> None:
    """How many texts come at once. Their length is limited by that of the call's body."""
    if len(texts) > CALL_TEXTS:
        raise refusal(
            f"texts: a call has at most {CALL_TEXTS}, not {len(texts)}. Submit the job with open: true, append the "
            "others by appendTexts, and start it by startJob."
        )


def check_page(first: int) -> None:
    """How much is read at once."""
    if not 1 <= first <= PAGE:
        raise refusal(f"first: 1 to {PAGE} were expected, not {first}.")


def refusal(message: str) -> TolkError:
    """The error for an argument that does not fit. The message says what was expected."""
    return TolkError(Code.BAD_INPUT, message)


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and len(value) <= URL_CHARACTERS
    except ValueError:
        return False
