"""A network as a directory: what its files say is what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.network.generation import Generation
from models.network.marian import Marian
from models.training.export import export


def test_the_options_of_decoding_are_those_of_the_network(trained: Path, tmp_path: Path) -> None:
    network = Marian.load(trained / "model")
    generation = Generation(length_penalty=0.6, renormalize_logits=True, no_repeat_ngram_size=3, bad_words=((5, 6),))
    config = replace(network.config, generation=generation, num_beams=3)
    export(network.state_dict(), config, trained / "model", tmp_path / "landed")
    assert Marian.load(tmp_path / "landed").config == config
