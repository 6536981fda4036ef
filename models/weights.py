"""A checkpoint's weights: its file, the tensors in it, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from models.errors import UnknownModel
from models.files import LARGEST_WEIGHTS, opened, quote, unique
from models.statedict import read_state_dict

LARGEST_HEADER = 1 << 20  # bytes, of safetensors; a tensor takes about 130


def weights_path(directory: Path) -> Path:
    """The checkpoint's file; safetensors goes before the older format. Raises UnknownModel where there is neither."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if os.path.lexists(directory / name):
            return directory / name
    raise UnknownModel(f"{directory}: has neither model.safetensors nor pytorch_model.bin.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors by its own names. Nothing in it is run. Raises UnknownModel."""
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else read_state_dict(path)
    except (MemoryError, UnknownModel):
        raise
    except Exception as error:  # a parser's, of bytes that may be anything
        raise UnknownModel(f"{path}: is no checkpoint that can be read safely: {quote(error)}.") from error


def fingerprint(directory: Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the weights."""
    with opened(weights_path(directory), LARGEST_WEIGHTS) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Mapped from the file. The library checks that tensors lie one behind the other and fill the file, but takes
    minutes over a long header, and the last of two tensors of the same name."""
    with opened(path, LARGEST_WEIGHTS) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER:
            raise ValueError(f"its header would have {size} bytes; at most {LARGEST_HEADER} were expected")
        json.loads(file.read(size), object_pairs_hook=unique)
    return load_file(path)
