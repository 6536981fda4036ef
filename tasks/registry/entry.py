"""An entry of models.toml: a model, where it comes from, and the directions it translates in."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.contract.names import shared_route
from tasks.contract.request import RequestOptions

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")


class RegistryError(Exception):
    """models.toml cannot be used; the message names the file, the entry and what was expected."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A direction a model translates in; `token` is the target token of a multilingual model, such as `>>fra<<`."""

    source: str
    target: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    `reference` is an embedded model's name, an absolute directory, `hf:ORG/NAME`, or an address. A `warm` model is
    loaded before its worker takes work, any other on demand. `precision` is None for the worker's own; `checksum` is
    `sha256:` and 64 hexadecimal digits; `example` is a text to warm up with.
    """

    name: str
    reference: str
    pairs: tuple[Pair, ...]
    decoding: RequestOptions = field(default_factory=RequestOptions)
    precision: str | None = None
    warm: bool = True
    checksum: str | None = None
    example: str | None = None

    @property
    def route(self) -> str:
        """What its queues are named after: the model where it is warm, else what it shares with others on demand."""
        return self.name if self.warm else shared_route(self.name)

    @property
    def target_tokens(self) -> dict[str, str]:
        """Of a multilingual model, by target language."""
        return {pair.target: pair.token for pair in self.pairs if pair.token is not None}
