"""The limits of one request."""

from __future__ import annotations

from collections.abc import Sequence

from app.settings import Settings
from tasks.contract.errors import Code, TolkError
from tasks.contract.reply import Failure

MAX_NBEST = 10  # each takes a place in the beam, which costs as much as another text
MAX_PRESERVED = 100  # phrases, each of so many characters at most; every text is searched for all of them
MAX_NAME_CHARACTERS = 100  # of a language's or model's name, because errors quote it


def check_texts(texts: Sequence[str], settings: Settings) -> None:
    """Raises TolkError(BAD_INPUT), with the limit, if there are too many texts or characters in all."""
    if len(texts) > settings.max_texts:
        _refuse(f"{len(texts)} texts are more than a request may hold, {settings.max_texts}. Send several requests.")
    total = sum(map(len, texts))
    if total > settings.max_request_characters:
        _refuse(
            f"The texts have {total} characters together, more than the {settings.max_request_characters} "
            "that a request may have. Send several requests."
        )


def check_text(text: str, settings: Settings) -> Failure | None:
    """The failure of a text that is too long, with the limit; None if it is not. It does not affect the other texts."""
    if len(text) <= settings.max_text_characters:
        return None
    limit = f"more than the {settings.max_text_characters} that one text may have"
    return Failure(Code.BAD_INPUT, f"The text has {len(text)} characters, {limit}. Send it in parts.")


def check_timeout(timeout: float, settings: Settings) -> None:
    """Raises TolkError(BAD_INPUT), with the limit, unless the timeout is a number above 0 and within the limit."""
    if not 0 < timeout <= settings.max_timeout:
        _refuse(f"timeout: more than 0 and at most {settings.max_timeout} seconds were expected, not {timeout:g}.")


def check_nbest(nbest: int) -> None:
    """Raises TolkError(BAD_INPUT), with the limit, unless that many translations of a text may be asked for."""
    if not 1 <= nbest <= MAX_NBEST:
        _refuse(f"nbest: 1 to {MAX_NBEST} were expected, not {nbest}.")


def check_preserve(phrases: Sequence[str]) -> None:
    """Raises TolkError(BAD_INPUT), with the limit, for too many phrases, and for a blank or a long one."""
    if len(phrases) > MAX_PRESERVED:
        _refuse(f"preserve: at most {MAX_PRESERVED} phrases were expected, not {len(phrases)}.")
    for phrase in phrases:
        if not phrase.strip() or len(phrase) > MAX_PRESERVED:
            _refuse(f"preserve: a phrase has 1 to {MAX_PRESERVED} characters that are not all blank.")


def check_names(**names: str | None) -> None:
    """Raises TolkError(BAD_INPUT) for a name that is too long. The names are given by the field that holds them."""
    for field, name in names.items():
        if name is not None and len(name) > MAX_NAME_CHARACTERS:
            _refuse(f"{field}: a name has at most {MAX_NAME_CHARACTERS} characters, not {len(name)}.")


def _refuse(message: str) -> None:
    raise TolkError(Code.BAD_INPUT, message)
