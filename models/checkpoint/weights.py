"""Reads a checkpoint's weights, in the formats of safetensors and of torch.save."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from models.checkpoint.files import LARGEST_WEIGHTS, opened, quote, unique
from models.checkpoint.statedict import read_state_dict
from models.errors import UnknownModel

LARGEST_HEADER = 1 << 20  # bytes of safetensors' header, which has about 130 for each tensor


def read_weights(path: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors under the names that it gives them. None of the file is executed.

    Raises UnknownModel for a file that is not a valid checkpoint.
    """
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else read_state_dict(path)
    except (MemoryError, UnknownModel):
        raise
    except Exception as error:  # the parsers may raise anything for malformed bytes
        raise UnknownModel(f"{path}: is not a checkpoint that can be read safely: {quote(error)}.") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors, mapped from the file. The library checks that they fill the file without overlapping. But it takes
    minutes to read a long header, and accepts a name that occurs twice, so these two are checked here."""
    with opened(path, LARGEST_WEIGHTS) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER:
            raise ValueError(f"its header would have {size} bytes; at most {LARGEST_HEADER} were expected")
        json.loads(file.read(size), object_pairs_hook=unique)
    return load_file(path)
