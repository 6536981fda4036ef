"""FID-4: whatever a model says, each hold comes through exactly once, and what went wrong is said."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoint.metadata import Symbols
from models.engine.batch import Hypothesis
from models.errors import DeadlineExceeded
from models.translation.draft import Draft, draft
from models.translation.repairs import Outcomes, second_tries
from models.translation.results import Translation, assemble
from models.translation.runaways import Decoded
from text.holds import Profile, find

Model = Callable[[str], str]


class Lines:
    """Each line is one token, and what the model says of it another."""

    unknown_id, eos_id = -1, -2

    def __init__(self, holds: int) -> None:
        self.symbols = Symbols(tuple(f"⟦h{i}⟧" for i in range(holds)))
        self.lines: list[str] = []

    def encode(self, text: str, target_token: str | None = None) -> list[int]:
        self.lines.append(text)
        return [self.lines.index(text)]

    def decode(self, tokens: tuple[int, ...]) -> str:
        return self.lines[tokens[0]]

    def outcome(self, tokens: tuple[int, ...], model: Model) -> Decoded:
        said = self.encode(model(self.lines[tokens[0]]))
        return Decoded([Hypothesis(tuple(said), -0.5, "eos")])


def translated(text: str, model: Model, *, holds: int = 16, late: bool = False, **options: Any) -> Translation:
    tokenizer: Any = Lines(holds)
    made = draft(text, tokenizer, source="fr", target_token=None, longest=200, **options)
    assert isinstance(made, Draft)
    outcomes: dict[tuple[int, ...], Any] = {each: tokenizer.outcome(each, model) for each in made.tokens}
    first: Outcomes = dict(outcomes)
    for each in second_tries([made], first, tokenizer=tokenizer, source="fr", target="en"):
        outcomes[each] = DeadlineExceeded("late") if late else tokenizer.outcome(each, model)
    return assemble(made, outcomes, tokenizer, source="fr", target="en")


def scrambled(line: str) -> str:
    words = line.split()
    Random(len(line)).shuffle(words)
    return " ".join(words)


MODELS: list[Model] = [
    str,
    lambda _: "",
    lambda _: "nothing of it",
    lambda line: f"{line} {line}",
    scrambled,
    lambda line: line[::2],
    lambda line: line.replace("⟦h0⟧", "⟦h1⟧"),
    lambda line: line.upper(),
]
PIECES = st.sampled_from(
    ["%s ", "{name}", "<b>", "</b>", "https://x.org/a_(b) ", "Un chat ", "dort. ", "Tom ", "42 ", "⟦h0⟧", "\n", "`a b`"]
)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("holds", [0, 3, 16])
@given(text=st.lists(PIECES, max_size=14).map("".join))
@settings(max_examples=20, deadline=None)
def test_each_hold_comes_through_once_whatever_the_model_says(model: Model, holds: int, text: str) -> None:
    translation = translated(text, model, holds=holds).text
    assert translation is not None
    asked = [text[hold.start : hold.end] for hold in find(text)]
    got = [translation[hold.start : hold.end] for hold in find(translation)]
    for hold in set(asked):
        assert got.count(hold) == asked.count(hold), (text, translation)


def test_the_words_between_lost_holds_are_translated_and_it_is_said() -> None:
    found = translated("Bonjour {name}, ça va ?", lambda line: line if "⟦" not in line else "Hello")
    assert found.text == "Bonjour {name}, ça va ?"
    assert found.flags == ("SPLIT",)


def test_what_is_late_stays_as_it_is_and_it_is_said() -> None:
    found = translated("Bonjour {name}, ça va ?", lambda _: "Hello", late=True)
    assert found.text == "Bonjour {name}, ça va ?"
    assert found.flags == ("SOURCE_KEPT",)


def test_a_lost_number_is_held_in_a_second_try() -> None:
    """FID-6: in the spelling of the target language; if it is lost again, that is said."""
    found = translated("Il a 1 234,5 chats", lambda line: line.replace("1 234,5", "123"))
    assert found.text == "Il a 1,234.5 chats"
    assert found.flags == ()
    assert translated("Il a 37 chats", lambda _: "He has cats").flags == ("NUMBER_MISMATCH",)
    assert translated("Il a des chats", lambda _: "He has 37 cats").flags == ("NUMBER_MISMATCH",)


def test_a_lost_sign_is_held_with_its_number() -> None:
    """FID-6: a model that has no token for a currency loses it in the first try."""
    found = translated("Cela coûte 1 234,56 € en 2004", lambda line: line.replace(" €", ""))
    assert found.text == "Cela coûte €1,234.56 en 2004"
    assert found.flags == ()


def test_nothing_is_held_or_repaired_with_holds_off() -> None:
    assert translated("Il a 37 %s", lambda _: "He has", profile=Profile.OFF).text == "He has"
    assert translated("Il a Word", lambda _: "He has", profile=Profile.OFF, preserve=["Word"]).text == "He has Word"
