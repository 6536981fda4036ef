"""What a run says of its model between steps: loss and scores by set, samples of translations, and where it looks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, cast

import torch
from torch import Tensor

from models.local import LocalTranslator
from models.network.marian import Marian
from models.training.batches import batched, padded
from models.training.config import Config
from models.training.data import Pair
from models.training.evaluate import evaluate
from models.training.export import export
from models.training.network import cross_entropy, forward
from models.training.prepare import Prepared
from models.training.vocabulary import Vocabulary

_LONGEST_SHOWN = 24  # tokens of a sentence whose attention is shown


def measure(
    network: Marian, average: dict[str, Tensor], config: Config, prepared: Prepared, snapshot: Path
) -> dict[str, Any]:
    """Of the averaged weights, which are written to `snapshot` and translate there as the service would, greedily.

    `sets`: figures by set; `samples`: sources, references and translations; `attention`: pieces of both sides and
    where each of the target looks. Sentences are the same at every call.
    """
    if not prepared.held_out:
        return {}
    shutil.rmtree(snapshot, ignore_errors=True)
    export(average, network.config, prepared.vocabulary.directory, snapshot, **prepared.vocabulary.tokenizer(config))
    chosen = {name: _some(pairs, config) for name, pairs in prepared.held_out.items()}
    sets, samples = {}, []
    each = -(-config.watching.samples // len(chosen))
    token = prepared.vocabulary.target_token
    with LocalTranslator.load(
        str(snapshot.absolute()),
        device=config.training.device,
        precision=config.watching.precision,
        target_tokens={config.target: token} if token else None,
    ) as translator:
        for name, pairs in chosen.items():
            figures, texts = evaluate(translator, name, pairs, beam=1, resamples=0, target=config.target)
            sets[name] = {
                "bleu": round(figures.bleu.score, 2),
                "chrf": round(figures.chrf.score, 2),
                "numbers": [*figures.numbers],
                "holds": [*figures.holds] if figures.holds else None,
                "runaways": [*figures.runaways],
            }
            samples += [[name, *pair, text] for pair, text in list(zip(pairs, texts, strict=True))[:each]]
    with averaged(network, average), torch.inference_mode():
        for name, pairs in chosen.items():
            sets[name]["loss"] = round(loss(network, prepared.vocabulary, pairs, config), 4)
        attention = _attention(network, prepared.vocabulary, [pair for pairs in chosen.values() for pair in pairs])
    return {"sets": sets, "samples": samples[: config.watching.samples], "attention": attention}


def _some(pairs: Sequence[Pair], config: Config) -> list[Pair]:
    random = Random(config.training.seed)  # noqa: S311 - no secret
    return random.sample(pairs, min(len(pairs), config.watching.sentences))


@contextmanager
def averaged(network: Marian, average: dict[str, Tensor]) -> Iterator[None]:
    """The network with its averaged weights, for a while."""
    own = {name: weights.clone() for name, weights in network.state_dict().items()}
    network.load_state_dict(average)
    try:
        yield
    finally:
        network.load_state_dict(own)


def loss(network: Marian, vocabulary: Vocabulary, pairs: Sequence[Pair], config: Config) -> float:
    """The cross-entropy of a target token, in float32."""
    longest = network.config.max_position_embeddings
    fit = [(s, t) for s, t in vocabulary.encode_pairs(pairs) if max(len(s), len(t)) <= longest]
    total, tokens = 0.0, 0
    for batch in batched(fit, config.training.batch_tokens, vocabulary.pad):
        sources, inputs, targets = (ids.to(network.device) for ids in batch)
        _, plain = cross_entropy(network, forward(network, sources, inputs).hidden, targets)
        total += plain.item()
        tokens += int((targets != vocabulary.pad).sum())
    return total / max(1, tokens)


def _attention(network: Marian, vocabulary: Vocabulary, pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """Of a pair of middling length, the reference being said."""
    for pair in sorted(pairs, key=lambda pair: abs(len(pair.source) - 50)):
        located = [vocabulary.locate(side, text) for side, text in enumerate(pair)]
        if max(len(each.ids) for each in located) < _LONGEST_SHOWN:
            batch = padded(list(vocabulary.encode_pairs([pair])), vocabulary.pad)
            sources, inputs = batch.sources.to(network.device), batch.inputs.to(network.device)
            attention = forward(network, sources, inputs, with_attention=True).attention
            weights = [[round(weight, 2) for weight in row] for row in cast("Tensor", attention)[0].tolist()]
            source, target = ([*each.pieces, "</s>"] for each in located)
            source = [*filter(None, [vocabulary.target_token]), *source]
            return {"source": source, "target": target, "weights": weights}
    return None
