"""Computes from a model's files how much memory it takes, before it is loaded."""

from __future__ import annotations

from pathlib import Path

import torch

from models.engine.settings import EngineSettings
from models.network.config import MarianConfig
from models.network.marian import Marian
from models.network.precision import choose

# Measured in a process that loads many models.
_TOKENIZER = {"source.spm": 3, "target.spm": 3, "vocab.json": 8, "target_vocab.json": 8}  # times the file's size
_HEAP = 1.1  # times the weights: memory between them is lost to fragmentation while models come and go
_MODULES = 2_000_000  # bytes of the Python and torch objects of a model, without its weights
_LANE = 300_000  # bytes of a lane's thread, and of its search
_POSITIONS = 128  # positions of all hypotheses of a small batch, whose keys and values the cache has


def footprint(
    directory: Path, *, device: str = "cpu", precision: str = "auto", settings: EngineSettings | None = None
) -> int:
    """Bytes of the device's memory that the model of a directory takes when it is loaded and has little to do.

    On a CPU this is the memory of the whole LocalTranslator, including the tokenizer, and lanes with small batches. A
    large batch takes more while it lasts. Raises UnknownModel for a configuration that cannot be read, and BadInput for
    a precision that the device does not have.
    """
    precision = choose(precision, device)
    config = MarianConfig.load(directory)
    with torch.device("meta"):
        marian = Marian(config)
    if precision == "int8":
        from models.network import quantize

        weights, width = quantize.size(marian), 2  # bytes of a number in keys and values
    else:
        width = getattr(torch, precision).itemsize
        weights = width * sum(tensor.numel() for tensor in (*marian.parameters(), *marian.buffers()))
    if torch.device(device).type != "cpu":
        return weights
    files = ((directory / name, times) for name, times in _TOKENIZER.items())
    tokenizer = sum(times * path.stat().st_size for path, times in files if path.is_file())
    cache = _POSITIONS * config.decoder_layers * 2 * config.d_model * width
    lanes = (settings or EngineSettings()).lanes_on(torch.device(device))
    return int(_HEAP * weights) + tokenizer + _MODULES + lanes * (_LANE + cache)
