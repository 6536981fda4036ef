"""What a step of training costs, and what its products alone would cost: the floor of this processor.

python -m benchmarks.training [--threads 2] [--layers 6] [--vocabulary 12000] [--tokens 5000]

The batch is made up, of sentences of 20 tokens. Other work on the machine hardly changes CPU time; tokens/s follow from
it, as if every thread had a core for itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from models.network.config import MarianConfig
from models.training.batches import padded
from models.training.config import Training
from models.training.network import build
from models.training.optimizer import optimizer_of
from models.training.train import autocasts, step

LENGTH = 20  # tokens of a sentence


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens per second of training, and of its products alone.")
    for name, default in (("threads", 1), ("layers", 6), ("vocabulary", 12_000), ("tokens", 5_000), ("steps", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = config(options.layers, options.vocabulary + 1)
    training = Training(threads=options.threads)
    network = build(shape)
    optimizer = optimizer_of(network, training)
    random = torch.Generator().manual_seed(1)
    rows = torch.randint(1, options.vocabulary, (2, options.tokens // LENGTH, LENGTH), generator=random).tolist()
    batch = padded(list(zip(*rows, strict=True)), shape.pad_token_id)
    tokens = batch.targets.numel()
    dtype = torch.bfloat16 if autocasts(training) else torch.float32

    whole = seconds(lambda: step(network, optimizer, batch, training, 1, 1e-4), options.steps)
    bare = seconds(lambda: products(shape, tokens, dtype), options.steps)
    speed, floor = tokens * options.threads / whole, tokens * options.threads / bare
    parameters = sum(weights.numel() for weights in network.parameters())
    print(f"{parameters / 1e6:.1f} M parameters, {str(dtype).removeprefix('torch.')}, {options.threads} threads")
    print(
        f"a step: {whole:.2f} s of CPU, {speed:,.0f} tokens/s; its products alone: {bare:.2f} s, {floor:,.0f} tokens/s"
    )
    print(f"of the floor: {bare / whole:.0%}")


def config(layers: int, vocabulary: int) -> MarianConfig:
    pad = vocabulary - 1
    return MarianConfig(
        d_model=256,
        vocab_size=vocabulary,
        decoder_vocab_size=vocabulary,
        encoder_layers=layers,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        max_position_embeddings=512,
        activation_function="swish",
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        forced_eos_token_id=0,
        bad_token_ids=(pad,),
        max_length=512,
        num_beams=4,
    )


def products(shape: MarianConfig, tokens: int, dtype: torch.dtype) -> None:
    """All of a step, forward and both ways backward, between matrices that are there already."""
    d, inner = shape.d_model, shape.encoder_ffn_dim
    layer = [(d, 3 * d), (d, d), (d, inner), (inner, d)]
    cross = [(d, d), (d, 2 * d), (d, d)]
    sizes = layer * shape.encoder_layers + (layer + cross) * shape.decoder_layers + [(d, shape.vocab_size)]
    for inputs, outputs in sizes:
        x, weight, gradient = (
            torch.zeros(size, dtype=dtype) for size in ((tokens, inputs), (outputs, inputs), (tokens, outputs))
        )
        x @ weight.T
        gradient @ weight
        gradient.T @ x


def seconds(work: Callable[[], object], times: int) -> float:
    """Of CPU time, of all threads; the median, without the first."""
    taken = []
    for _ in range(times + 1):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    main()
