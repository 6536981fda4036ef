"""A checkpoint's weights: the tensors in its file."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from models.checkpoint.files import LARGEST_WEIGHTS, opened, quote, unique
from models.checkpoint.statedict import read_state_dict
from models.errors import UnknownModel

LARGEST_HEADER = 1 << 20  # bytes, of safetensors; a tensor takes about 130


def read_weights(path: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors by its own names. Nothing in it is run. Raises UnknownModel."""
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else read_state_dict(path)
    except (MemoryError, UnknownModel):
        raise
    except Exception as error:  # a parser's, of bytes that may be anything
        raise UnknownModel(f"{path}: is no checkpoint that can be read safely: {quote(error)}.") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Mapped from the file. The library checks that tensors lie one behind the other and fill the file, but takes
    minutes over a long header, and the last of two tensors of the same name."""
    with opened(path, LARGEST_WEIGHTS) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER:
            raise ValueError(f"its header would have {size} bytes; at most {LARGEST_HEADER} were expected")
        json.loads(file.read(size), object_pairs_hook=unique)
    return load_file(path)
