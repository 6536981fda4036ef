"""The loop: what it writes, how it resumes, and that others read what it landed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctranslate2
import pytest
import torch
from safetensors.torch import load_file
from transformers import MarianMTModel, MarianTokenizer

from models.checkpoint.checksum import Checksum
from models.engine.options import DecodingOptions
from models.errors import BadInput
from models.local import LocalTranslator
from models.network.marian import Marian
from models.tokenizer import Tokenizer
from models.training.config import Training
from models.training.train import learning_rate, train
from tests.models.test_parity import count_ties, generate
from tests.models.training.conftest import SETTINGS

if TYPE_CHECKING:
    from models.training.data import Pair
    from tests.models.conftest import Decode, Follow
    from tests.models.training.conftest import Configure


def losses(run: Path) -> list[Any]:
    """All that a run has noted but for times."""
    lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
    notes = [json.loads(line) for line in lines]
    return [{name: value for name, value in note.items() if name != "tokens_per_second"} for note in notes]


def test_the_loss_falls_and_a_model_lands(trained: Path) -> None:
    notes = losses(trained)
    said = [note["loss"] for note in notes if "loss" in note]
    assert [note["step"] for note in notes if "loss" in note] == list(range(5, 41, 5))
    assert said[-1] < 0.7 * said[0]
    assert [note["step"] for note in notes if "sets" in note] == [20, 40]
    assert {path.name for path in (trained / "model").iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "source.spm", "target.spm", "vocab.json"),
        *("tokenizer_config.json", "tolk.json", "README.md", "report.html"),
    }
    weights = load_file(trained / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    pad = json.loads((trained / "model" / "vocab.json").read_text())["<pad>"]
    assert not weights["model.shared.weight"][pad].any()
    assert weights["final_logits_bias"][0, pad] == 0


def test_the_symbols_are_the_models(trained: Path) -> None:
    tokenizer = Tokenizer.load(trained / "model")
    assert tokenizer.symbols.holds == ("⟦h0⟧", "⟦h1⟧", "⟦h2⟧", "⟦h3⟧")
    assert tokenizer.symbols.term == ("⟦t⟧", "⟦/t⟧")
    assert "tolk.json" in Checksum.of(trained / "model").digests
    for symbol in tokenizer.symbols.all:
        assert tokenizer.decode(tokenizer.encode(f"Le {symbol} voit")[:-1]) == f"Le {symbol} voit"


def test_others_make_the_same_of_it(trained: Path, pairs: list[Pair], decode: Decode, follow: Follow) -> None:
    """Ours and transformers' in float32: the same ids from the same text, the same translations."""
    directory = trained / "model"
    ours, tokenizer = Marian.load(directory), Tokenizer.load(directory)
    theirs = MarianMTModel.from_pretrained(directory, dtype=torch.float32).eval()
    their_tokenizer = MarianTokenizer.from_pretrained(directory)
    texts = [*(pair.source for pair in pairs[:40]), "Le ⟦h0⟧ voit 1234 ⟦o1⟧ chats ⟦c1⟧."]
    sources = [tokenizer.encode(text) for text in texts]
    assert sources == [their_tokenizer(text)["input_ids"] for text in texts]
    for beam in (1, 3):
        expected = [best for best, *_ in generate(theirs, sources, num_beams=beam, max_length=41)]
        found = [each[0].tokens for each in decode(ours, sources, DecodingOptions(beam=beam, max_length=40))]
        assert count_ties(ours, follow, sources, found, expected) <= 2


def test_ctranslate2_makes_the_same_of_it(
    trained: Path, pairs: list[Pair], decode: Decode, follow: Follow, tmp_path: Path
) -> None:
    directory = trained / "model"
    ours, tokenizer = Marian.load(directory), Tokenizer.load(directory)
    ctranslate2.converters.TransformersConverter(str(directory)).convert(str(tmp_path / "converted"))
    theirs = ctranslate2.Translator(str(tmp_path / "converted"), compute_type="float32", intra_threads=1)
    ids = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    names = {i: piece for piece, i in ids.items()}
    sources = [tokenizer.encode(pair.source) for pair in pairs[:40]]
    pieces = [[names[token] for token in source] for source in sources]
    expected = [
        tuple(ids[piece] for piece in result.hypotheses[0])
        for result in theirs.translate_batch(pieces, beam_size=1, max_decoding_length=40)
    ]
    found = [each[0].tokens for each in decode(ours, sources, DecodingOptions(max_length=40))]
    assert count_ties(ours, follow, sources, found, expected) <= 2


def test_the_service_translates_with_it(trained: Path) -> None:
    with LocalTranslator.load(str(trained / "model"), precision="float32") as translator:
        assert (translator.source, translator.target, translator.longest) == ("fr", "en", 32)
        assert translator.decoding.beam == 2
        [translation] = translator.translate(["Le chat voit le chien."]).results
    assert translation.error is None


def test_killed_and_resumed_to_the_same_figures(
    trained: Path, corpus: Path, configure: Configure, tmp_path: Path
) -> None:
    """kill -9 of another process, between two checkpoints."""
    settings = tmp_path / "tiny.toml"
    settings.write_text(SETTINGS, encoding="utf-8")
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "models", "train", str(settings), "--data", str(corpus), "--runs", str(runs)]
    history = runs / "tiny" / "history.jsonl"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 100
        while not (history.exists() and '"step": 15' in history.read_text(encoding="utf-8")):
            assert process.poll() is None, "the training ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
    assert (runs / "tiny" / "trunk.pt").exists()
    assert not (runs / "tiny" / "model").exists()
    train(configure(), corpus, runs / "tiny", tmp_path / "model")
    assert losses(runs / "tiny") == losses(trained)
    expected, found = (load_file(path / "model.safetensors") for path in (trained / "model", tmp_path / "model"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_signal_stops_it_after_a_step_and_it_goes_on(
    trained: Path, corpus: Path, configure: Configure, tmp_path: Path
) -> None:
    from models.training import train as loop

    config, done = configure(), 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == 13:
            os.kill(os.getpid(), signal.SIGTERM)
        return loop.step(*arguments)

    with pytest.raises(loop.Stopped, match="stopped at step 13"):
        train(config, corpus, tmp_path, tmp_path / "model", update=interrupted)
    train(config, corpus, tmp_path, tmp_path / "model")
    assert losses(tmp_path) == losses(trained)


def test_both_ways_at_once_by_muon(corpus: Path, configure: Configure, tmp_path: Path) -> None:
    """One run, and one that is stopped and goes on: the same figures for both directions."""
    ways = ('target = "en"', 'target = "en"\nboth_ways = true', "steps = 30", 'steps = 30\noptimizer = "muon"')
    train(configure(*ways), corpus, tmp_path / "whole", tmp_path / "model")
    notes = losses(tmp_path / "whole")
    said = [note["loss"] for note in notes if "loss" in note]
    assert said[-1] < 0.7 * said[0]
    assert [set(note["sets"]) for note in notes if "sets" in note] == [{"dev", "dev, turned round"}] * 2
    train(configure(*ways, "steps = 30", "steps = 10", "landing = 10", "landing = 1"), corpus, tmp_path / "r", tmp_path)
    train(configure(*ways), corpus, tmp_path / "r", tmp_path / "again")
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "again"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_it_goes_on_from_the_trunk_after_it_has_landed(
    trained: Path, corpus: Path, configure: Configure, tmp_path: Path
) -> None:
    """Landed after 20 steps, and after 30: the second landing is that of a run that never landed before."""
    early = configure("steps = 30", "steps = 20")
    train(early, corpus, tmp_path, tmp_path / "early")
    train(configure(), corpus, tmp_path, tmp_path / "late")
    expected, found = (load_file(path / "model.safetensors") for path in (trained / "model", tmp_path / "late"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    now = replace(early, training=replace(early.training, steps=0))
    train(now, corpus, tmp_path, tmp_path / "again")  # lands from where the trunk is, which it has done
    found = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_held_out_sentences_are_refused_and_counted(
    corpus: Path, configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure("steps = 30", "steps = 1", "landing = 10", "landing = 1")
    with caplog.at_level(logging.INFO, "models"):
        train(config, corpus, tmp_path, tmp_path / "model")
    table = next(record.getMessage() for record in caplog.records if "held out" in record.getMessage())
    head, row, _ = (line.split() for line in table.splitlines())
    assert dict(zip(head[-3:], row[-3:], strict=True))["kept"] == "570"
    assert "30 pairs were refused" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    only = configure("train.tsv.gz", "dev.tsv")
    with pytest.raises(BadInput, match="no pair of it can be trained on"):
        train(only, corpus, tmp_path / "other", tmp_path / "model")


def test_another_process_may_not_train_there(corpus: Path, configure: Configure, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="another process"):
            train(configure(), corpus, tmp_path, tmp_path / "model")


def test_other_settings_are_told(
    trained: Path, corpus: Path, configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(configure("steps = 30", "steps = 1", "landing = 10", "landing = 1"), corpus, tmp_path, tmp_path / "model")
    changed = configure("steps = 30", "steps = 2", "landing = 10", "landing = 1", "average = 0.9", "average = 0.5")
    train(changed, corpus, tmp_path, tmp_path / "model")
    assert "figures will not be the same" in caplog.text


def test_the_rate_rises_stays_and_falls_to_land() -> None:
    training = Training(learning_rate=1.0, warm_up=4, landing=5)
    assert [learning_rate(training, step, None) for step in (0, 1, 3, 4, 10**6)] == [0.25, 0.5, 1, 1, 1]
    assert [learning_rate(training, 10 + step, 10) for step in range(5)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
