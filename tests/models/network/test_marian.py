from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import MarianMTModel

from models.engine.options import DecodingOptions
from models.errors import UnknownModel
from models.network.layers import rounded
from models.network.marian import Marian
from models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tests.models.conftest import Decode, Follow, MakeModel

SOURCES = [[5, 8, 0], [9, 10, 11, 12, 13, 0], [7, 0]]


def test_log_probabilities_are_those_of_transformers(make_model: MakeModel, follow: Follow) -> None:
    ours = Marian.load(make_model(), dtype=torch.float64)
    theirs = MarianMTModel.from_pretrained(make_model(), dtype=torch.float64).eval()
    targets = [[2, 5, 9, 6], [2, 2, 7, 7], [2, 20, 30, 40]]
    padded = torch.tensor([[*source, *[2] * (6 - len(source))] for source in SOURCES])
    mask = torch.tensor([[1] * len(source) + [0] * (6 - len(source)) for source in SOURCES])
    with torch.inference_mode():
        logits = theirs(input_ids=padded, attention_mask=mask, decoder_input_ids=torch.tensor(targets)).logits
    expected = logits.log_softmax(-1)
    expected[..., list(ours.config.bad_token_ids)] = -torch.inf
    torch.testing.assert_close(follow(ours, SOURCES, targets), expected, rtol=0, atol=1e-10)


def test_hypotheses_share_a_memory_and_find_their_past_in_the_rows_of_others(
    make_model: MakeModel, follow: Follow
) -> None:
    model = Marian.load(make_model(), dtype=torch.float64)
    v = model.config.decoder_vocab_size - 1
    with torch.inference_mode():
        cache = model.cache(3)
        cache.reserve(3, 8)
        model.prefill(cache, [2], [SOURCES[1]])
        cache.memories[:], cache.lengths[:] = 2, len(SOURCES[1])
        cache.paths[:, 0] = 1
        cache.tokens[1], cache.positions[1] = 5, 0
        model.step(cache, np.array([1], np.int32), v)
        cache.tokens[:2], cache.positions[:], cache.paths[:, 1] = [6, 7], 1, [0, 1, 2]  # both continue row 1
        tokens, scores = model.step(cache, np.array([0, 1], np.int32), v)
    expected = follow(model, [SOURCES[1]] * 2, [[5, 6], [5, 7]])[:, 1]
    found = torch.full_like(expected, -torch.inf).scatter_(1, torch.from_numpy(tokens).long(), torch.from_numpy(scores))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [*range(1, 9), 9, 17, 64, 65, 100])
def test_shapes_are_few_and_hold_what_they_are_for(size: int) -> None:
    assert size <= rounded(size) <= max(2 * size - 1, size + 7)
    assert rounded(rounded(size)) == rounded(size)


def test_weights_of_half_precision_are_loaded_in_the_precision_asked_for(directory: Path) -> None:
    edit_weights(directory, lambda weights: {name: tensor.half() for name, tensor in weights.items()})
    for dtype in (torch.float32, torch.float64):
        model = Marian.load(directory, dtype=dtype)
        assert {tensor.dtype for tensor in [*model.parameters(), *model.buffers()]} == {dtype}
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_bias_of_the_logits_may_be_missing(directory: Path) -> None:
    edit_weights(directory, lambda weights: {name: t for name, t in weights.items() if name != "final_logits_bias"})
    assert not Marian.load(directory).final_logits_bias.any()


def test_copies_of_tied_weights_and_position_tables_of_old_checkpoints_are_no_trouble(
    directory: Path, decode: Decode
) -> None:
    expected = decode(Marian.load(directory), SOURCES, DecodingOptions(max_length=8))
    weights = load_file(directory / "model.safetensors")
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights["model.shared.weight"]
    weights["model.encoder.embed_positions.weight"] = torch.zeros(64, 16)
    torch.save(weights, directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    assert decode(Marian.load(directory), SOURCES, DecodingOptions(max_length=8)) == expected


def test_old_checkpoints_keep_the_options_of_generation_in_config_json(directory: Path) -> None:
    (directory / "generation_config.json").unlink()
    edit_json(directory / "config.json", {"bad_words_ids": [[2]], "num_beams": 6, "max_length": 33})
    config = Marian.load(directory).config
    assert (config.bad_token_ids, config.num_beams, config.max_length) == ((2,), 6, 33)
    assert config.forced_eos_token_id == 0


def test_targets_end_where_the_positions_do(directory: Path, decode: Decode) -> None:
    edit_json(directory / "generation_config.json", {"max_length": 10_000})
    model = Marian.load(directory)
    model.final_logits_bias[0, 0] = -1e4
    (found,) = decode(model, SOURCES[:1], DecodingOptions())[0]
    assert (len(found.tokens), found.finish_reason) == (model.config.max_position_embeddings - 1, "length")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(UnknownModel, match=name):
        Marian.load(directory)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"model_type": "bert"}'])
def test_a_config_that_is_none_is_named(directory: Path, content: bytes) -> None:
    (directory / "config.json").write_bytes(content)
    with pytest.raises(UnknownModel, match=r"config\.json"):
        Marian.load(directory)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_function": "tanh"},
        {"d_model": None},
        {"d_model": "16"},
        {"d_model": 15},
        {"d_model": -16},
        {"d_model": 1 << 40},
        {"encoder_layers": 10**9},
        {"encoder_attention_heads": 0},
        {"vocab_size": True},
        {"decoder_vocab_size": 10},
        {"eos_token_id": [0, 1]},
        {"eos_token_id": 5000},
        {"pad_token_id": 152},  # the first id after the vocabulary
        {"decoder_start_token_id": 5000},
        {"forced_eos_token_id": 7},
        {"scale_embedding": "yes"},
        {"max_position_embeddings": 10**9},
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_refused(directory: Path, changes: dict[str, Any]) -> None:
    generation = {"forced_eos_token_id": changes.get("forced_eos_token_id", 0)}
    edit_json(directory / "config.json", changes)
    edit_json(directory / "generation_config.json", generation)
    with pytest.raises(UnknownModel, match=r"config\.json"):
        Marian.load(directory)


@pytest.mark.parametrize(
    "changes",
    [
        {"bad_words_ids": [[2, 5000]]},
        {"bad_words_ids": [[5000]]},
        {"bad_words_ids": [[]]},
        {"bad_words_ids": [["2"]]},
        {"bad_words_ids": 2},
        {"max_length": "long"},
        {"num_beams": 0.5},
        {"length_penalty": "1"},
        {"length_penalty": 11},
        {"repetition_penalty": 0},
        {"early_stopping": "always"},
        {"min_length": -1},
        {"forced_bos_token_id": 5000},
        {"begin_suppress_tokens": [5000]},
        {"suppress_tokens": [0]},
        {"renormalize_logits": "yes"},
        {"decoder_start_token_id": [2, 3]},
        {"eos_token_id": [0, 7]},
    ],
    ids=str,
)
def test_options_of_generation_that_do_not_fit_are_refused(directory: Path, changes: dict[str, Any]) -> None:
    edit_json(directory / "generation_config.json", changes)
    with pytest.raises(UnknownModel, match="config"):
        Marian.load(directory)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True},
        {"num_beam_groups": 2},
        {"diversity_penalty": 0.5},
        {"penalty_alpha": 0.6},
        {"guidance_scale": 1.5},
        {"remove_invalid_values": True},
        {"exponential_decay_length_penalty": [5, 1.1]},
        {"sequence_bias": [[[3], -2.0]]},
        {"stop_strings": ["!"]},
        {"watermarking_config": {"bias": 2.0}},
        {"max_time": 3.0},
        {"force_words_ids": [[7]]},
    ],
    ids=str,
)
def test_options_of_generation_that_tolk_does_not_have_are_refused_by_name(
    directory: Path, options: dict[str, Any]
) -> None:
    edit_json(directory / "generation_config.json", options)
    with pytest.raises(UnknownModel, match=rf"generation_config\.json: {next(iter(options))} "):
        Marian.load(directory)


def test_options_of_generation_without_effect_are_taken_in_silence(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = Marian.load(directory).config
    neutral = {"do_sample": False, "num_beam_groups": 1, "diversity_penalty": 0.0, "sequence_bias": None, "top_p": 0.9}
    none = dict.fromkeys(["early_stopping", "repetition_penalty", "length_penalty", "min_length", "suppress_tokens"])
    edit_json(directory / "generation_config.json", {**neutral, **none, "temperature": 2.0, "use_cache": False})
    assert Marian.load(directory).config == expected
    assert not caplog.records


def test_an_unknown_option_of_generation_is_logged_once(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit_json(directory / "generation_config.json", {"novel_penalty": 2.0})
    for _ in range(3):
        Marian.load(directory)
    assert [record.getMessage() for record in caplog.records] == [
        f"{directory}/generation_config.json: these keys are not known to Tolk and are ignored: novel_penalty."
    ]


LAYER_NORM = "model.encoder.layers.0.self_attn_layer_norm.weight"
KEYS = "model.decoder.layers.0.encoder_attn.k_proj.weight"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({LAYER_NORM: None}, LAYER_NORM),
        ({KEYS: None}, KEYS),
        ({"model.shared.weight": None}, "embed_tokens"),
        ({"model.encoder.layers.2.fc1.weight": torch.zeros(24, 16)}, "layers.2.fc1"),
        ({"model.encoder.layer_norm.weight": torch.zeros(16)}, "model.encoder.layer_norm.weight"),
        ({KEYS: torch.zeros(16, 17)}, KEYS),
        ({KEYS: torch.zeros(17, 16), KEYS.replace("k_proj", "v_proj"): torch.zeros(15, 16)}, KEYS),
        ({LAYER_NORM: torch.zeros(16, dtype=torch.int32)}, LAYER_NORM),
        ({"final_logits_bias": torch.zeros(1, 3)}, "final_logits_bias"),
    ],
    ids=str,
)
def test_a_tensor_that_is_missing_unknown_or_of_another_shape_is_named(
    directory: Path, changes: dict[str, Tensor | None], named: str
) -> None:
    edit_weights(directory, lambda weights: {name: t for name, t in {**weights, **changes}.items() if t is not None})
    with pytest.raises(UnknownModel, match=named):
        Marian.load(directory)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_says_what_the_processor_says(make_model: MakeModel, sentences: list[str], decode: Decode) -> None:
    tokenizer = Tokenizer.load(make_model())
    sources = [tokenizer.encode(sentence) for sentence in sentences[::10]]
    for options in (DecodingOptions(max_length=20), DecodingOptions(beam=4, max_length=20)):
        cpu, gpu = (
            decode(Marian.load(make_model(), device=device, dtype=torch.float64), sources, options)
            for device in ("cpu", "cuda:0")
        )
        assert [best.tokens for best, *_ in cpu] == [best.tokens for best, *_ in gpu]


def edit_json(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(directory: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = directory / "model.safetensors"
    save_file(edit(load_file(path)), path)
