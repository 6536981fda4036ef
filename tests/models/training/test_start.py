"""What a training begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from models.errors import BadInput
from models.local import LocalTranslator
from models.network.marian import Marian
from models.training.batches import padded
from models.training.data import Pair
from models.training.network import cross_entropy, forward
from models.training.start import begin
from models.training.train import train
from models.training.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel
    from tests.models.training.conftest import Configure

QUICK = ("steps = 30", "steps = 2", "landing = 10", "landing = 2", "learning_rate = 5e-3", "learning_rate = 1e-5")


def said(network: Marian, vocabulary: Vocabulary, pairs: list[Pair]) -> float:
    """The loss of a token."""
    batch = padded(list(vocabulary.encode_pairs(pairs)), vocabulary.pad)
    with torch.no_grad():
        _, plain = cross_entropy(network, forward(network, batch.sources, batch.inputs).hidden, batch.targets)
    return float(plain) / int((batch.targets != vocabulary.pad).sum())


def test_a_landed_model_goes_on_where_it_was(trained: Path, pairs: list[Pair], configure: Configure) -> None:
    vocabulary = Vocabulary(trained / "model")
    fresh = said(begin(configure(), vocabulary, None), vocabulary, pairs[:50])
    assert said(begin(configure(), vocabulary, trained / "model"), vocabulary, pairs[:50]) < 0.7 * fresh


def test_more_layers_than_the_model_has(trained: Path, pairs: list[Pair], configure: Configure) -> None:
    vocabulary = Vocabulary(trained / "model")
    config = configure(
        "encoder_layers = 1", "encoder_layers = 3", "decoder_layers = 1", "decoder_layers = 2\ngrow = true"
    )
    fresh = said(begin(config, vocabulary, None), vocabulary, pairs[:50])
    grown = begin(config, vocabulary, trained / "model")
    assert (len(grown.encoder), len(grown.decoder)) == (3, 2)
    assert said(grown, vocabulary, pairs[:50]) < 0.85 * fresh


def test_a_new_vocabulary_keeps_the_embeddings_of_known_pieces(
    trained: Path, corpus: Path, configure: Configure, tmp_path: Path
) -> None:
    config = configure("size = 200", "size = 150\nreuse = false", *QUICK)
    train(config, corpus, tmp_path, tmp_path / "model", trained / "model")
    old, new = (Marian.load(path / "model").source_embedding.weight for path in (trained, tmp_path))
    ids, theirs = (json.loads((path / "model" / "vocab.json").read_text()) for path in (tmp_path, trained))
    assert ids != theirs
    known = [(i, theirs[piece]) for piece, i in ids.items() if piece in theirs and not piece.startswith(("<", "⟦"))]
    assert len(known) > 50
    for mine, their in known:
        assert torch.allclose(new[mine], old[their], atol=2e-3)


def test_the_other_direction(trained: Path, corpus: Path, configure: Configure, tmp_path: Path) -> None:
    """The same vocabulary, the languages and the columns the other way round."""
    swapped = ('source = "fr"\ntarget = "en"', 'source = "en"\ntarget = "fr"\nreverse = true')
    config = configure(*QUICK, *swapped, "longest = 32", "longest = 0")
    train(config, corpus, tmp_path, tmp_path / "model", trained / "model")
    with LocalTranslator.load(str(tmp_path / "model"), precision="float32") as translator:
        assert (translator.source, translator.target) == ("en", "fr")
        assert translator.tokenizer.symbols.holds
        assert translator.longest == 32  # as the model says with which it began
    assert (tmp_path / "model" / "vocab.json").read_bytes() == (trained / "model" / "vocab.json").read_bytes()


@pytest.mark.parametrize("separate", [True, False])
def test_fine_tuning_a_model_of_somebody_else(
    separate: bool, make_model: MakeModel, corpus: Path, configure: Configure, tmp_path: Path
) -> None:
    """With its own vocabulary or vocabularies, and what it says of itself."""
    directory = make_model(separate=separate)
    with pytest.raises(BadInput, match="no target token >>en<<"):
        train(configure(*QUICK), corpus, tmp_path, tmp_path / "model", directory)
    config = configure(*QUICK, 'target = "en"', 'target = "en"\ntarget_token = ">>eng<<"')
    train(config, corpus, tmp_path, tmp_path / "model", directory)
    theirs, ours = Marian.load(directory), Marian.load(tmp_path / "model")
    names = ("d_model", "vocab_size", "decoder_vocab_size", "encoder_layers", "pad_token_id", "activation_function")
    assert all(getattr(ours.config, name) == getattr(theirs.config, name) for name in names)
    for name in ("vocab.json", "source.spm", "target.spm"):
        assert (tmp_path / "model" / name).read_bytes() == (directory / name).read_bytes()
    assert (tmp_path / "model" / "target_vocab.json").exists() == separate
    assert torch.allclose(ours.encoder[0].attention.qkv.weight, theirs.encoder[0].attention.qkv.weight, atol=0.01)  # type: ignore[union-attr,index,arg-type]
    with LocalTranslator.load(str(tmp_path / "model"), precision="float32") as translator:
        [translation] = translator.translate(["Le chat dort."], target="eng").results
    assert translation.error is None
