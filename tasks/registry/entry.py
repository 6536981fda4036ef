"""An entry of models.toml: a model, its origin, and the language pairs that it translates."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.contract.names import shared_route
from tasks.contract.request import RequestOptions

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")


class RegistryError(Exception):
    """models.toml has an error; the message names the file and the entry, and says what was expected."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A language pair of a model, spelled as text.languages.canonical does. `token` is the target token of a
    multilingual model, such as `>>fra<<`."""

    source: str
    target: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of models.toml.

    `reference` is an embedded model's name, an absolute directory, `hf:ORG/NAME`, or an address. A `warm` model is
    loaded before its worker takes work; other models are loaded on demand. Without `precision`, the worker's applies.
    `checksum` is `sha256:` and 64 hexadecimal digits. `example` is a text that warms the model up.
    `note` says to the people who use it what it is good for.
    """

    name: str
    reference: str
    pairs: tuple[Pair, ...]
    decoding: RequestOptions = field(default_factory=RequestOptions)
    precision: str | None = None
    warm: bool = True
    checksum: str | None = None
    example: str | None = None
    note: str | None = None

    @property
    def route(self) -> str:
        """The route of its requests: its own name if it is warm, else a route that models on demand share."""
        return self.name if self.warm else shared_route(self.name)

    @property
    def target_tokens(self) -> dict[str, str]:
        """The target tokens of a multilingual model, by target language; empty for other models."""
        return {pair.target: pair.token for pair in self.pairs if pair.token is not None}
