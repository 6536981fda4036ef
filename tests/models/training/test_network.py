"""Training's network is inference's: the same weights say the same, and the fused loss is the plain one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional as F
from transformers import MarianMTModel

from models.network.marian import Marian
from models.tokenizer import Tokenizer
from models.training.batches import padded
from models.training.export import tensors
from models.training.network import clear_pad_gradients, cross_entropy, forward, guided, trainable

if TYPE_CHECKING:
    from tests.models.conftest import Follow, MakeModel

CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {"separate": True},
    {"separate": True, "tie_word_embeddings": False},
    {"activation_function": "relu", "scale_embedding": False, "encoder_layers": 1, "decoder_layers": 3},
]


def sources_and_targets(directory: Path, sentences: list[str]) -> tuple[list[list[int]], list[list[int]]]:
    tokenizer = Tokenizer.load(directory)
    sources = [tokenizer.encode(sentence) for sentence in sentences[60:260:20]]
    return sources, [[*(token % 100 + 3 for token in source[:-1]), 0] for source in reversed(sources)]


@pytest.mark.parametrize("changes", CONFIGURATIONS, ids=str)
def test_logits_are_those_of_inference_and_of_transformers(
    changes: dict[str, Any], make_model: MakeModel, sentences: list[str], follow: Follow
) -> None:
    directory = make_model(**changes)
    inference = Marian.load(directory)
    bias = inference.final_logits_bias.clone()
    sources, targets = sources_and_targets(directory, sentences)
    batch = padded(list(zip(sources, targets, strict=True)), 2)
    expected = []
    for source, target in zip(sources, targets, strict=True):
        expected.append(follow(inference, [source], [[2, *target[:-1]]])[0])
    network = trainable(Marian.load(directory))
    with torch.no_grad():
        network.final_logits_bias.copy_(bias)
        hidden = forward(network, batch.sources, batch.inputs).hidden
        scores = (network.projection(hidden) + network.final_logits_bias).log_softmax(-1)
    for row, each in enumerate(expected):
        assert torch.allclose(scores[row, : len(each), 3:].double(), each[:, 3:], atol=2e-4)
    theirs = MarianMTModel.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = theirs(
            input_ids=batch.sources, attention_mask=batch.sources != 2, decoder_input_ids=batch.inputs
        ).logits.log_softmax(-1)
    there = batch.targets != 2
    assert torch.allclose(scores[there], logits[there], atol=2e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, 1000])
def test_the_fused_loss_and_its_gradients(
    smoothing: float, rows: int, make_model: MakeModel, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_model()
    sources, targets = sources_and_targets(directory, sentences)
    batch = padded(list(zip(sources, targets, strict=True)), 2)
    gradients = []
    for is_fused in (True, False):
        network = trainable(Marian.load(directory))
        hidden = forward(network, batch.sources, batch.inputs).hidden
        if is_fused:
            loss, plain = cross_entropy(
                network, hidden, batch.targets, smoothing, at_once=rows * network.config.vocab_size
            )
        else:
            there = batch.targets != 2
            logits = network.projection(hidden[there]) + network.final_logits_bias
            loss = F.cross_entropy(logits, batch.targets[there], reduction="sum", label_smoothing=smoothing)
            plain = F.cross_entropy(logits, batch.targets[there], reduction="sum")
        torch.autograd.backward(loss)
        gradients.append([loss.detach(), plain.detach(), *(p.grad for p in network.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_dropout_changes_what_is_said_and_seeds_fix_it(make_model: MakeModel, sentences: list[str]) -> None:
    directory = make_model()
    sources, targets = sources_and_targets(directory, sentences)
    batch = padded(list(zip(sources, targets, strict=True)), 2)
    network = trainable(Marian.load(directory))
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(forward(network, batch.sources, batch.inputs, dropout=0.3).hidden)
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_attention_sums_up_to_one_and_is_guided(make_model: MakeModel, sentences: list[str]) -> None:
    directory = make_model()
    sources, targets = sources_and_targets(directory, sentences)
    batch = padded(list(zip(sources, targets, strict=True)), 2)
    network = trainable(Marian.load(directory))
    goal = F.one_hot(torch.zeros_like(batch.targets), batch.sources.shape[1]).float()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        attention = forward(network, batch.sources, batch.inputs, with_attention=True).attention
        assert attention is not None
        assert torch.allclose(attention.sum(-1), torch.ones(attention.shape[:2]), atol=1e-5)
        assert not attention[(batch.sources == 2)[:, None, :].expand_as(attention)].any()
        loss = guided(attention, goal)
        losses.append(loss.item())
        torch.autograd.backward(loss / batch.targets.numel())
        optimizer.step()
        optimizer.zero_grad()
    assert losses == sorted(losses, reverse=True)


def test_the_row_of_pad_stays_zero(make_model: MakeModel, sentences: list[str]) -> None:
    directory = make_model()
    sources, targets = sources_and_targets(directory, sentences)
    batch = padded(list(zip(sources, targets, strict=True)), 2)
    network = trainable(Marian.load(directory))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(2):
        loss, _ = cross_entropy(network, forward(network, batch.sources, batch.inputs).hidden, batch.targets, 0.1)
        torch.autograd.backward(loss)
        clear_pad_gradients(network)
        optimizer.step()
    assert not network.source_embedding.weight[2].any()
    assert network.final_logits_bias[0, 2] == 0
    assert network.source_embedding.weight[3].any()


def test_what_is_exported_is_what_was_loaded(make_model: MakeModel) -> None:
    """Names and numbers, for tied and separate vocabularies."""
    for changes in CONFIGURATIONS:
        directory = make_model(**changes)
        model = Marian.load(directory)
        theirs = MarianMTModel.from_pretrained(directory, dtype=torch.float16).state_dict()
        for name, tensor in tensors(model.state_dict(), model.config).items():
            assert torch.equal(tensor, theirs[name]), name
