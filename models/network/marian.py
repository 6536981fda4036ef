"""The Marian Transformer, read from Hugging Face's MarianMT directories.

An encoder and a decoder with layer norm after each residual sum, sinusoidal positions, and scaled embeddings
(Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Junczys-Dowmunt et al. 2018, https://arxiv.org/abs/1804.00344;
`transformers.models.marian`). Decoding has two parts: `prefill` encodes the sources once, `step` computes the next
token of every hypothesis. Sizes are rounded up and padding is masked, so that only few shapes occur.

Shapes: n sentences or hypotheses, s source tokens, t target tokens so far, d the model's width, h heads, v target
vocabulary; r as in models.network.cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.checkpoint.files import weights_path
from models.checkpoint.weights import read_weights
from models.errors import UnknownModel
from models.network.cache import Cache, Ints
from models.network.config import MarianConfig
from models.network.interface import NO_LOGITS, Logits
from models.network.layers import DecoderLayer, EncoderLayer, StepInputs, rounded, send
from models.network.tensor_names import checkpoint_names, rename

_IMPROBABLE = -1e4  # a logit that float16 can hold, and whose exponential is nothing beside others


class Marian(nn.Module):
    """The network in floats. `load` reads it from a directory; call the other methods under torch.inference_mode()."""

    positions: Tensor
    final_logits_bias: Tensor

    def __init__(self, config: MarianConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.scale = math.sqrt(d) if config.scale_embedding else 1.0
        self.source_embedding = nn.Embedding(config.vocab_size, d)  # model.encoder.embed_tokens, or model.shared
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.target_embedding = (  # model.decoder.embed_tokens, or model.shared
            self.source_embedding
            if config.share_encoder_decoder_embeddings and config.tie_word_embeddings
            else nn.Embedding(config.decoder_vocab_size, d)
        )
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.projection = nn.Linear(d, config.decoder_vocab_size, bias=False)  # lm_head
        if config.tie_word_embeddings:
            self.projection.weight = self.target_embedding.weight
        self.register_buffer("final_logits_bias", torch.zeros(1, config.decoder_vocab_size))
        self.register_buffer("positions", sinusoids(config.max_position_embeddings, d), persistent=False)

    @classmethod
    def load(cls, directory: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Marian:
        """The model of a MarianMT directory, in `dtype` on `device`, ready for inference.

        Raises UnknownModel for a missing or malformed file, a missing or unknown tensor, a tensor of another shape or
        with numbers that are not finite, or another architecture. The message names the file or the tensor.
        """
        config = MarianConfig.load(directory)
        with torch.device("meta"):
            model = cls(config)
        path = weights_path(directory)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        model.load_state_dict(rename(read_weights(path), shapes, config, path), assign=True)
        model.positions = sinusoids(config.max_position_embeddings, config.d_model)
        if config.tie_word_embeddings:
            model.projection.weight = model.target_embedding.weight
        model.eval().requires_grad_(False).to(device=device, dtype=dtype)
        for name, tensor in model.state_dict().items():
            if not tensor.isfinite().all():
                theirs = ", ".join(checkpoint_names(name, config, {}))
                raise UnknownModel(f"{path}: {theirs} contains nan, infinity, or more than {model.precision} can hold.")
        if config.shuts_out:
            model.final_logits_bias = model.final_logits_bias.clone()  # not in memory that is mapped from the file
            model.final_logits_bias[:, list(config.bad_token_ids)] = _IMPROBABLE
        return model

    @property
    def device(self) -> torch.device:
        return self.final_logits_bias.device

    @property
    def precision(self) -> str:
        return str(self.final_logits_bias.dtype).removeprefix("torch.")

    @property
    def parameter_count(self) -> int:
        return sum(weights.numel() for weights in self.parameters())

    def cache(self, rows: int) -> Cache:
        """A cache for `rows` hypotheses."""
        return Cache(rows, len(self.decoder), self.config.d_model, self.final_logits_bias.dtype, self.device)

    def prefill(self, cache: Cache, rows: Sequence[int], sources: Sequence[Sequence[int]]) -> None:
        """Encodes the sources (token ids including the end token), and writes the keys and values that steps attend to
        into these rows of the cache."""
        by_length = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        for _, alike in groupby(by_length, key=lambda i: rounded(len(sources[i]))):  # to keep padding short
            some = list(alike)
            self._encode(cache, [rows[i] for i in some], [sources[i] for i in some])

    def _encode(self, cache: Cache, rows: Sequence[int], sources: Sequence[Sequence[int]]) -> None:
        fill = rounded(len(sources)) - len(sources)  # copies of the last source, as padding
        rows, sources = [*rows, *[rows[-1]] * fill], [*sources, *[sources[-1]] * fill]
        longest = min(rounded(max(map(len, sources))), self.config.max_position_embeddings)
        padded = torch.tensor([[*source, *[self.config.pad_token_id] * (longest - len(source))] for source in sources])
        lengths = torch.tensor([len(source) for source in sources])
        mask = send((torch.arange(longest) < lengths[:, None])[:, None, None, :], self.device)  # (n, 1, 1, s)
        x = self.source_embedding(send(padded, self.device)) * self.scale + self.positions[:longest]  # (n, s, d)
        for layer in self.encoder:
            x = layer(x, mask)
        at = send(torch.tensor(rows), self.device)
        for layer, memory in zip(cast("Iterable[DecoderLayer]", self.decoder), cache.memory, strict=True):
            memory[at, :longest] = layer.cross.kv(x).unflatten(-1, (2, -1))

    def step(
        self, cache: Cache, rows: Ints, count: int, logits: Logits = NO_LOGITS
    ) -> tuple[Ints, NDArray[np.float64]]:
        """The `count` likeliest next tokens of (n) rows, the best first, and their log-probabilities, both (n, count).

        Banned tokens are left out, but counted in the log-probabilities of the others unless the model says otherwise.
        All logits of some rows go into `logits`.
        """
        inputs = StepInputs.of(cache, rows, self.device)
        found = self.logits(cache, inputs)
        if logits.at.size:
            logits.values[:] = found[torch.from_numpy(logits.at).long().to(self.device)].float().cpu().numpy()
        scores = found.log_softmax(-1)
        scores[:, list(self.config.bad_token_ids)] = -torch.inf
        best = scores.topk(count)
        n = len(rows)  # without padding
        return best.indices[:n].int().cpu().numpy(), best.values[:n].double().cpu().numpy()

    def logits(self, cache: Cache, inputs: StepInputs) -> Tensor:
        """The logits of the next token of every hypothesis: (n, v), in float32 or, if the model uses it, float64."""
        x = self.target_embedding(inputs.tokens) * self.scale + self.positions[inputs.positions]  # (n, d)
        layers = cast("Iterable[DecoderLayer]", self.decoder)
        for layer, own, memory in zip(layers, cache.own, cache.memory, strict=True):
            x = layer.step(x, own, memory, inputs)
        logits: Tensor = self.projection(x) + self.final_logits_bias
        return logits.float() if logits.dtype.itemsize < 4 else logits


def sinusoids(positions: int, d: int) -> Tensor:
    """The table of positions (positions, d): sines in the first half of each row, cosines in the second, not
    interleaved. Computed in float64."""
    wavelength = 10_000.0 ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / wavelength
    return torch.cat((angle.sin(), angle.cos()), dim=1)[:, :d].float()
