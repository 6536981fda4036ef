"""Files of safetensors, valid and malicious."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.checkpoint.weights import LARGEST_HEADER, read_weights
from models.errors import UnknownModel


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def entry(begin: int = 0, end: int = 16, shape: Any = (4,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write(path: Path, header: Any, length: int | None = None, numbers: bytes = bytes(16)) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + numbers)


def test_the_file_made_here_is_read_where_nothing_is_wrong(path: Path) -> None:
    write(path, {"__metadata__": {"format": "pt"}, "a": entry()})
    assert read_weights(path)["a"].tolist() == [0, 0, 0, 0]


TWICE = (
    b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({"a": entry()}, 0),
        ({"a": entry()}, 5),
        ({"a": entry()}, 1000),
        ({"a": entry()}, LARGEST_HEADER + 1),
        ({"a": entry()}, (1 << 64) - 1),
        ({"a": entry(), "b": entry(8, 16, (2,))}, None),
        ({"a": entry(), "b": entry(16, 32)}, None),
        ({"a": entry(8, 16, (2,))}, None),
        ({"a": entry(0, 12, (3,))}, None),
        ({"a": entry(16, 0)}, None),
        ({"a": entry(-16, 0)}, None),
        ({"a": entry(shape=(5,))}, None),
        ({"a": entry(shape=(1 << 32, 1 << 32))}, None),
        ({"a": entry(shape=(-4,))}, None),
        ({"a": entry(shape=(True,))}, None),
        ({"a": entry(shape="4")}, None),
        ({"a": entry(dtype="F33\x1b[31m")}, None),
        ({"a": entry(dtype="I64")}, None),
        ({"__metadata__": {"a": 1}, "a": entry()}, None),
        (TWICE, None),
        (b"[" * 100_000, None),
        (b"\xff" * 100, None),
        (b"", None),
    ],
    ids=range(23),
)
def test_a_header_that_does_not_fit_the_file(path: Path, header: Any, length: int | None) -> None:
    write(path, header, length)
    with pytest.raises(UnknownModel, match=r"model\.safetensors: is not a checkpoint") as caught:
        read_weights(path)
    assert str(caught.value).isprintable()


def test_a_header_of_a_hundred_megabytes_is_not_read(path: Path) -> None:
    write(path, {"a": entry()}, 100_000_000)
    with path.open("r+b") as file:
        file.truncate(100_000_100)
    begin = time.process_time()
    with pytest.raises(UnknownModel, match="100000000 bytes"):
        read_weights(path)
    assert time.process_time() - begin < 1


def test_every_truncation_is_noticed(path: Path) -> None:
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(4)}, path)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(UnknownModel, match=r"model\.safetensors"):
            read_weights(path)
