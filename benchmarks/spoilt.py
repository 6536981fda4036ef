"""The worker with models that spoil what they say: `SPOIL=drop celery -A benchmarks.spoilt worker`.

`drop` leaves out every third word, `double` says everything twice, `scramble` changes the order of the words.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

from models.tokenizer import Tokenizer
from tasks.celery import app

__all__ = ["app"]


def drop(words: list[str]) -> list[str]:
    return [word for at, word in enumerate(words) if at % 3 != 1]


def double(words: list[str]) -> list[str]:
    return words * 2


def scramble(words: list[str]) -> list[str]:
    return random.Random(len(words)).sample(words, len(words))


SPOILS: dict[str, Callable[[list[str]], list[str]]] = {"drop": drop, "double": double, "scramble": scramble}


def spoil(name: str) -> None:
    """Lets every tokenizer of the process spoil what it decodes."""
    whole = Tokenizer.decode

    def decode(self: Tokenizer, tokens: Sequence[int]) -> str:
        return " ".join(SPOILS[name](whole(self, tokens).split()))

    Tokenizer.decode = decode  # type: ignore[method-assign]


if name := os.environ.get("SPOIL"):
    spoil(name)
