"""Drafts of texts, with a tokenizer that knows only a few words."""

from __future__ import annotations

from typing import Any

import pytest

from models.checkpoint.metadata import Symbols
from models.errors import BadInput
from models.translation.draft import Draft, draft
from text.segment import join

UNKNOWN, END = 1, 0


class Words:
    """A token for each word of the vocabulary."""

    unknown_id = UNKNOWN
    symbols = Symbols()
    vocabulary = ("il", "pleut", "dort", ">>en<<")

    def encode(self, text: str, target_token: str | None = None) -> list[int]:
        words = ([] if target_token is None else [target_token]) + text.lower().replace(".", " ").split()
        return [self.vocabulary.index(word) + 2 if word in self.vocabulary else UNKNOWN for word in words] + [END]


def drafted(text: str, *, target_token: str | None = None, longest: int = 10) -> Draft:
    tokenizer: Any = Words()
    made = draft(text, tokenizer, source="fr", target_token=target_token, longest=longest)
    assert isinstance(made, Draft)
    return made


def test_sentences_in_tokens_and_the_layout_around_them() -> None:
    made = drafted("- Il pleut.\n\nIL DORT.")
    assert made.segmentation.sentences == ("Il pleut.", "IL DORT.")
    assert made.segmentation.gaps == ("- ", "\n\n", "")
    assert made.tokens == [(2, 3, END), (2, 4, END)]
    assert not made.unknown


def test_a_sentence_begins_with_the_target_token() -> None:
    assert drafted("Il dort.", target_token=">>en<<").tokens == [(5, 2, 4, END)]


def test_what_is_too_long_is_taken_in_parts() -> None:
    made = drafted("Il pleut il dort", longest=3)
    assert made.tokens == [(2, 3, END), (2, 4, END)]
    assert made.segmentation.parts == {0, 1}


def test_what_the_model_does_not_know_at_all_is_layout() -> None:
    made = drafted("Il pleut. спасибо")
    assert made.tokens == [(2, 3, END)]
    assert made.unknown


def test_invisible_characters_within_words_do_not_reach_the_model() -> None:
    made = drafted("Il pl\u00adeut. Il \u200bdo\u2060rt.\u200b")
    assert made.tokens == [(2, 3, END), (2, 4, END)]
    assert made.segmentation.sentences == ("Il pl\u00adeut.", "Il \u200bdo\u2060rt.")
    assert not made.unknown


def test_nobody_can_write_a_target_token_into_a_text() -> None:
    made = drafted(">>en<< Il pleut. >>en<<")
    assert made.tokens == [(2, 3, END)]
    assert made.segmentation.gaps == (">>en<< ", " >>en<<")


def test_joined_lines_reach_the_model_as_one() -> None:
    tokenizer: Any = Words()
    made = draft("Il\npleut.\nIl dort.", tokenizer, source="fr", target_token=None, longest=10, joined=True)
    assert isinstance(made, Draft)
    assert made.tokens == [(2, 3, END), (2, 4, END)]
    assert made.segmentation.gaps == ("", "\n", "")


class Pieces(Words):
    """A token for each word of the vocabulary, and one for each letter of other words."""

    vocabulary = ("pleut", "SNCF", "dormir", "Oui", "non", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"abcdefghijklmnopqrstuvwxyz")

    def encode(self, text: str, target_token: str | None = None) -> list[int]:
        words = text.replace(".", " ").split()
        pieces = [piece for word in words for piece in ([word] if word in self.vocabulary else word)]
        return [self.vocabulary.index(piece) + 2 for piece in pieces] + [END]


@pytest.mark.parametrize(
    ("word", "given"),
    [
        ("OUI", "Oui"),
        ("NON.", "non"),
        ("DORMIR.", "dormir"),
        ("ANNULER", "Annuler"),  # too long for an acronym
        ("PLEUT", "pleut"),
        ("SNCF", None),  # layout
        ("OTAN.", None),
        ("TVA", None),
    ],
)
def test_a_word_in_capitals_is_softened_unless_it_is_an_acronym(word: str, given: str | None) -> None:
    tokenizer: Any = Pieces()
    made = draft(word, tokenizer, source="fr", target_token=None, longest=10)
    assert isinstance(made, Draft)
    assert made.tokens == ([] if given is None else [tuple(tokenizer.encode(given))])
    assert made.softened == (frozenset() if given is None else {word})


@pytest.mark.parametrize("text", ["a\0", "\ud800"])
def test_why_a_text_is_refused(text: str) -> None:
    tokenizer: Any = Words()
    assert isinstance(draft(text, tokenizer, source="fr", target_token=None, longest=10), BadInput)


def test_no_more_is_encoded_at_once_than_a_sentence_may_have() -> None:
    lengths: list[int] = []

    class Watched(Words):
        def encode(self, text: str, target_token: str | None = None) -> list[int]:
            lengths.append(len(text))
            return super().encode(text, target_token)

    tokenizer: Any = Watched()
    made = draft("漢" * 20_000, tokenizer, source="fr", target_token=None, longest=10)
    assert isinstance(made, Draft)
    assert max(lengths) <= 80
    assert join(made.segmentation.gaps, made.segmentation.sentences) == "漢" * 20_000


def test_what_a_pause_raises_ends_the_work() -> None:
    tokenizer: Any = Words()

    def pause() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        draft("Il pleut.", tokenizer, source="fr", target_token=None, longest=10, pause=pause)
