from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import MarianTokenizer

from models.errors import BadInput, UnknownModel
from models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel

FR_EN = Path(__file__).parents[2] / "models" / "embedded" / "fr-en"

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")  # Tolk does not use it

OURS = Tokenizer.load(FR_EN)
THEIRS = MarianTokenizer.from_pretrained(FR_EN)


@pytest.fixture
def directory(make_model: MakeModel, tmp_path: Path) -> Path:
    """A copy of a tiny model, which the test may change."""
    return shutil.copytree(make_model(separate=True), tmp_path / "model")


def test_ids_of_300_sentences_are_those_of_transformers(sentences: list[str]) -> None:
    assert [OURS.encode(sentence) for sentence in sentences] == THEIRS(sentences)["input_ids"]


def test_text_of_ids_is_that_of_transformers(sentences: list[str]) -> None:
    ids = [OURS.encode(sentence) for sentence in sentences]
    assert [OURS.decode(each) for each in ids] == [THEIRS.decode(each, skip_special_tokens=True) for each in ids]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_ids_of_any_text_are_those_of_transformers(text: str) -> None:
    if not text.startswith(">>") and not any(token in text for token in THEIRS.all_special_tokens):
        assert OURS.encode(text) == THEIRS(text)["input_ids"]


@given(st.lists(st.integers(0, 12000)))
def test_text_of_any_ids_is_that_of_transformers(ids: list[int]) -> None:
    assert OURS.decode(ids) == THEIRS.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u00a0", "\0", "a\0b", "\u202eabc", "🦊" * 50, "ÿ" * 3000, "﷽"])
def test_odd_texts(text: str) -> None:
    assert OURS.encode(text) == THEIRS(text)["input_ids"]


@pytest.mark.parametrize("text", ["\ud800", "abc\udfff", "\udc80 \ud800"])
def test_half_a_surrogate_pair_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="surrogate"):
        OURS.encode(text)


@pytest.mark.parametrize("text", ["</s>", "a</s> b", "<pad>", "<unk>", ">>fra<< Bonjour"])
def test_special_tokens_in_a_text_are_text(make_model: MakeModel, text: str) -> None:
    """In transformers they are not: there a text could end the sentence, or choose the target language."""
    tokenizer = Tokenizer.load(make_model())
    ids = tokenizer.encode(text, ">>eng<<")
    special = {tokenizer.eos_id, tokenizer.pad_id, *range(3, 5)}
    assert (ids[0], ids[-1], special & set(ids[1:-1])) == (4, 0, set())


@pytest.mark.parametrize("separate", [False, True])
def test_tiny_vocabularies(make_model: MakeModel, sentences: list[str], separate: bool) -> None:
    """The vocabularies lack pieces that their SentencePiece models have, and have target tokens."""
    directory = make_model(separate=separate)
    theirs = MarianTokenizer.from_pretrained(directory)
    ours = Tokenizer.load(directory)
    texts = [sentence.upper() if separate else sentence for sentence in sentences[::5]]
    assert [ours.encode(text) for text in texts] == theirs(texts)["input_ids"]
    targets = theirs(text_target=texts)["input_ids"]
    assert [ours.decode(ids) for ids in targets] == theirs.batch_decode(targets, skip_special_tokens=True)


def test_special_tokens_of_separate_vocabularies_have_their_own_ids(directory: Path) -> None:
    path = directory / "target_vocab.json"
    ids = json.loads(path.read_text())
    ids["<pad>"], ids["▁BON"] = len(ids), ids["<pad>"]  # a piece where the source has its padding
    path.write_text(json.dumps(ids))
    edited = json.loads((directory / "config.json").read_text())
    edited["decoder_vocab_size"] += 1
    (directory / "config.json").write_text(json.dumps(edited))
    assert Tokenizer.load(directory).decode([2, ids["<pad>"], 0]) == "BON"


def add(directory: Path, count: int) -> int:
    """Makes room for more tokens; returns the first of their ids."""
    config = json.loads((directory / "config.json").read_text())
    first: int = config["vocab_size"]
    changes = {"vocab_size": first + count, "decoder_vocab_size": config["decoder_vocab_size"] + count}
    (directory / "config.json").write_text(json.dumps({**config, **changes}))
    return first


ADDED = [
    "Bonjour <name> !",
    "<name>",
    "<name><name>, [ITEM]<nam [item]",
    " Il\u00a0dort <nam e <name ",
    "Il (<wide> dort.",
    "Il <wide>dort <wide> .",
    "rien",
]


@pytest.mark.parametrize("flags", [None, {}, {"lstrip": True}, {"rstrip": True}], ids=str)
def test_ids_with_tokens_that_fine_tuning_has_added_are_those_of_transformers(
    make_model: MakeModel, tmp_path: Path, flags: dict[str, bool] | None
) -> None:
    directory = shutil.copytree(make_model(), tmp_path / "model")
    first = add(directory, 4)
    added = {"<name>": first, "<nam": first + 1, "[ITEM]": first + 2, "<wide>": first + 3}
    if flags is None:
        (directory / "added_tokens.json").write_text(json.dumps(added))
    else:
        plain = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False, "special": False}
        described = {str(i): {"content": text, **plain, **flags} for text, i in added.items()}
        (directory / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": described}))
    ours, theirs = Tokenizer.load(directory), MarianTokenizer.from_pretrained(directory)
    for text in ADDED:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_an_added_token_may_have_to_be_a_word(make_model: MakeModel, tmp_path: Path) -> None:
    directory = shutil.copytree(make_model(), tmp_path / "model")
    described = {str(add(directory, 1)): {"content": "<name>", "single_word": True}}
    before = Tokenizer.load(directory).encode("Il<name> dort.")
    (directory / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": described}))
    tokenizer = Tokenizer.load(directory)
    assert tokenizer.encode("Il<name> dort.") == before
    assert (
        tokenizer.encode("Il <name> dort.") == MarianTokenizer.from_pretrained(directory)("Il <name> dort.").input_ids
    )


def test_nobody_can_write_a_special_token_into_a_text(make_model: MakeModel, tmp_path: Path) -> None:
    directory = shutil.copytree(make_model(), tmp_path / "model")
    first = add(directory, 1)
    before = Tokenizer.load(directory).encode("Il </s> dort <pad> . >>deu<<")
    (directory / "added_tokens.json").write_text(json.dumps({"</s>": 0, "<unk>": 1, "<pad>": 2, ">>deu<<": first}))
    tokenizer = Tokenizer.load(directory)
    assert tokenizer.encode("Il </s> dort <pad> . >>deu<<") == before
    assert tokenizer.encode("Il dort.", ">>deu<<")[0] == first


@pytest.mark.parametrize(
    "added", [{"<a>": -1}, {"<a>": "5"}, {"<a>": 5}, {"<a>": 10**6}, {"</s>": 5}, {"": 152}], ids=str
)
def test_added_tokens_that_do_not_fit_are_refused(
    make_model: MakeModel, tmp_path: Path, added: dict[str, object]
) -> None:
    directory = shutil.copytree(make_model(), tmp_path / "model")
    add(directory, 9)
    (directory / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(UnknownModel, match=r"added_tokens\.json"):
        Tokenizer.load(directory)


def test_a_target_token_comes_first(make_model: MakeModel) -> None:
    directory = make_model()
    ours, theirs = Tokenizer.load(directory), MarianTokenizer.from_pretrained(directory)
    assert ours.target_tokens == {">>fra<<", ">>eng<<"}
    assert ours.encode("Bonjour.", ">>eng<<") == theirs(">>eng<< Bonjour.")["input_ids"]


@pytest.mark.parametrize("token", [">>deu<<", "</s>", "Bonjour", ""])
def test_a_target_token_that_is_none_is_refused(make_model: MakeModel, token: str) -> None:
    with pytest.raises(BadInput, match="target token"):
        Tokenizer.load(make_model()).encode("Bonjour.", token)


def test_what_it_says_about_itself(make_model: MakeModel) -> None:
    tokenizer = Tokenizer.load(make_model())
    assert (tokenizer.eos_id, tokenizer.unknown_id, tokenizer.pad_id, tokenizer.max_length) == (0, 1, 2, 64)
    assert (OURS.eos_id, OURS.unknown_id, OURS.pad_id, OURS.target_tokens) == (0, 1, 12000, frozenset())
    assert OURS.unknown_id in OURS.encode("北京")
    assert OURS.unknown_id not in OURS.encode("Bonjour.")


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "target_vocab.json", "source.spm", "target.spm"])
def test_a_missing_or_broken_file_is_named(directory: Path, name: str) -> None:
    (directory / name).write_bytes(b"\xff{")
    with pytest.raises(UnknownModel, match=name):
        Tokenizer.load(directory)
    (directory / name).unlink()
    with pytest.raises(UnknownModel, match=name):
        Tokenizer.load(directory)


@pytest.mark.parametrize("name", ["source.spm", "target.spm"])
def test_an_empty_sentencepiece_model_is_named(directory: Path, name: str) -> None:
    (directory / name).write_bytes(b"")
    with pytest.raises(UnknownModel, match=name):
        Tokenizer.load(directory)


@pytest.mark.parametrize(
    "changes", [{"</s>": None}, {"<unk>": None}, {"a": "3"}, {"a": -1}, {"a": 1_000_000}, {"a": True}], ids=str
)
def test_a_vocabulary_that_does_not_fit_is_named(directory: Path, changes: dict[str, Any]) -> None:
    path = directory / "vocab.json"
    ids = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({token: index for token, index in ids.items() if index is not None}))
    with pytest.raises(UnknownModel, match=r"vocab\.json"):
        Tokenizer.load(directory)


def test_without_a_tokenizer_config_there_is_one_vocabulary(make_model: MakeModel, tmp_path: Path) -> None:
    directory = shutil.copytree(make_model(), tmp_path / "model")
    (directory / "tokenizer_config.json").unlink()
    assert Tokenizer.load(directory).encode("Bonjour.") == Tokenizer.load(make_model()).encode("Bonjour.")
