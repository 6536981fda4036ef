"""Files of torch.save, valid and malicious."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._utils import _rebuild_tensor_v2

from models.checkpoint.statedict import LARGEST_PICKLE, read_state_dict
from models.checkpoint.weights import read_weights
from models.errors import UnknownModel

FOUR = struct.pack("<4f", 1, 2, 3, 4)


class Call:
    """An object whose pickle makes the reader call a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


class Stored:
    """An object whose pickle names a storage."""

    def __init__(self, *identity: Any) -> None:
        self.identity = identity


class Pickler(pickle.Pickler):
    def persistent_id(self, thing: Any) -> Any:
        return thing.identity if isinstance(thing, Stored) else None


def pickled(content: Any) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def storage(*, kind: Any = torch.FloatStorage, key: Any = "0", length: Any = 4) -> Stored:
    return Stored("storage", kind, key, "cpu", length)


def tensor(of: Any = None, offset: Any = 0, shape: Any = (4,), strides: Any = (1,)) -> Call:
    return Call(_rebuild_tensor_v2, of or storage(), offset, shape, strides, False, OrderedDict())


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Checks that at most so many bytes of memory are taken at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def as_zip(path: Path, table: bytes, parts: Mapping[str, bytes] | None = None, compression: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, part in {"data.pkl": table, "data/0": FOUR, **(parts or {})}.items():
            archive.writestr(f"model/{name}", part)
    return path


def as_pickles(path: Path, table: bytes, keys: Any = ("0",), numbers: bytes = struct.pack("<q", 4) + FOUR) -> Path:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, system)]
    path.write_bytes(b"".join([*head, table, pickle.dumps(keys, 2), numbers]))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pytorch_model.bin"


@pytest.mark.parametrize("is_zip", [True, False])
def test_it_reads_what_torch_reads(path: Path, is_zip: bool) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    flat = torch.arange(20.0)
    tensors = OrderedDict(
        **{name.replace(".", "_"): each for name, each in module.state_dict().items()},
        parameter=nn.Parameter(torch.randn(2, 3)),
        half=torch.randn(5).half(),
        brain=torch.randn(5).bfloat16(),
        double=torch.randn(5).double(),
        transposed=torch.randn(3, 5).t(),
        part=flat[3:9].view(2, 3),
        whole=flat,
        again=flat,
        scalar=torch.tensor(7.0),
    )
    for content in (tensors, dict(tensors), module.state_dict()):  # a state_dict has attributes
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        expected = torch.load(path, weights_only=True)
        found = read_state_dict(path)
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
            assert found[name].dtype == expected[name].dtype


@pytest.mark.parametrize("write", [as_zip, as_pickles])
def test_the_files_made_here_are_read_where_nothing_is_wrong(path: Path, write: Callable[..., Path]) -> None:
    assert read_state_dict(write(path, pickled({"a": tensor()})))["a"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("write", [as_zip, as_pickles])
def test_nothing_in_it_is_called_or_imported(
    path: Path, tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'imported')!r})")
    monkeypatch.syspath_prepend(tmp_path)
    trace = tmp_path / "trace"
    for table in (
        pickled({"a": Call(os.mkdir, str(trace))}),
        pickled({"a": Call(_rebuild_tensor_v2, Call(os.mkdir, str(trace)), 0, (4,), (1,))}),
        pickled({"a": Call(eval, f"__import__('os').mkdir({str(trace)!r})")}),
        b"\x80\x02cevil\nthing\n.",
        b"\x80\x02cevil\nthing\n)\x81.",
        b"\x80\x02(cevil\nthing\no.",
        b"(ievil\nthing\n.",
    ):
        with pytest.raises(UnknownModel, match=r"pytorch_model\.bin"):
            read_weights(write(path, table))
    assert not trace.exists()
    assert not (tmp_path / "imported").exists()


def nested(depth: int) -> tuple[Any, ...]:
    """A nested tuple of 2 ** depth ones that takes few bytes in a pickle."""
    found: tuple[Any, ...] = (1,)
    for _ in range(depth):
        found = (found, found)
    return found


# pickle.dumps would hash the key, too, so the pickle is composed of instructions.
NESTED_KEY = b"\x80\x02}" + pickled(nested(64))[2:-1] + b"K\x01s."


@pytest.mark.parametrize("write", [as_zip, as_pickles])
@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pickled([1, 2]), "a table of tensors was expected"),
        (pickled(tensor()), "a table of tensors was expected"),
        (pickled({"a": "text"}), "a table of tensors was expected"),
        (pickled({"a": {"b": tensor()}}), "a table of tensors was expected"),
        (pickled({3: tensor()}), "a name is not a string"),
        (b"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x01u.", "occurs twice"),
        (NESTED_KEY, "a name is not a string"),
        (pickled({"a": tensor(shape=nested(64))}), "shape"),
        (pickled({"a": tensor(storage(key=nested(64)))}), "a storage was expected"),
        (pickled({"a": tensor(storage(kind=torch.LongStorage))}), "floats were expected, not torch LongStorage"),
        (pickled({"a": tensor(storage(kind=torch.BoolStorage))}), "floats were expected"),
        (pickled({"a": tensor(storage(kind=nested(64)))}), "a storage was expected"),
        (pickled({"a": Call(bytearray, 1 << 40)}), "builtin"),
        (pickled({"a": Call(torch.device, "cpu")}), "it calls torch device"),
        (pickled({"a": tensor(storage(length=1 << 40))}), "storages"),
        (pickled({"a": tensor(storage(length=-4))}), "storages|negative"),
        (pickled({"a": tensor(storage(length=3))}), "storages"),
        (pickled({"a": tensor(storage(key="../../etc/passwd"))}), "no part|storages"),
        (pickled({"a": tensor(shape=(5,))}), "storages"),
        (pickled({"a": tensor(shape=(1 << 40,), strides=(0,))}), "storages"),
        (pickled({"a": tensor(strides=(2,))}), "out of bounds"),
        (pickled({"a": tensor(offset=1)}), "out of bounds"),
        (pickled({"a": tensor(offset=-1)}), "offset"),
        (pickled({"a": tensor(offset=1 << 62)}), "out of bounds|overflow"),
        (pickled({"a": tensor(offset=1 << 70)}), "overflow|too large|int"),
        (pickled({"a": tensor(strides=(-1,))}), "[Nn]egative|strid"),
        (pickled({"a": tensor(shape=(2, 2))}), "mismatch|length|dimension"),
        (pickled({"a": tensor(shape=(1,) * 100_000, strides=(1,) * 100_000)}), "four dimensions"),
        (pickled({"a": tensor(shape="4")}), "it calls"),
        (b"\x80\x02", "exhausted|a table"),
        (b"", "exhausted|a table"),
        (b".", "pop"),
        (b"\x80\x02t.", "pop"),
        (b"\x80\x02h\x07.", "7"),
        (b"\x80\x02" + b"X\xff\xff\xff\x7fa.", "expected 2147483647 bytes"),
        (b"\x80\x02" + b"r\xff\xff\xff\xff" * 9 + b".", "range"),
        (b"\x80\x02(" + b"2" * 50 + b".", "instruction DUP"),
    ],
    ids=range(37),
)
def test_a_table_that_is_none(path: Path, write: Callable[..., Path], table: bytes, said: str) -> None:
    with pytest.raises(UnknownModel, match=rf"pytorch_model\.bin: .*({said})") as caught:
        read_weights(write(path, table))
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
    "make",
    [
        torch.Tensor.to_sparse,
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: tensor.to(torch.int64),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to(torch.float8_e4m3fn),
        lambda tensor: tensor.to("meta"),
        lambda tensor: [tensor],
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_other_kinds_of_tensors_are_refused(path: Path, make: Callable[[Tensor], object]) -> None:
    torch.save({"a": make(torch.zeros(3, 4))}, path)
    with pytest.raises(UnknownModel, match=r"pytorch_model\.bin"):
        read_weights(path)


def test_a_bomb_is_not_unpacked(path: Path) -> None:
    zeros = bytes(100 << 20)
    as_zip(path, pickled({"a": tensor(storage(length=len(zeros) // 4))}), {"data/0": zeros}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    del zeros
    with bounded(10 << 20), pytest.raises(UnknownModel, match="compressed"):
        read_weights(path)


def test_parts_that_lie_one_over_the_other(path: Path) -> None:
    """A hundred names refer to the same megabyte."""
    as_zip(path, pickled({"a": tensor()}), {"data/1": bytes(1 << 20)} | {f"data/{i}": b"" for i in range(2, 100)})
    content, size = path.read_bytes(), struct.pack("<LL", 1 << 20, 1 << 20)
    begin = content.index(b"PK\x01\x02")
    directory = content[begin:]
    at = 0
    with zipfile.ZipFile(path) as archive:
        offset = struct.pack("<L", archive.getinfo("model/data/1").header_offset)
    while (at := directory.find(b"PK\x01\x02", at)) >= 0:
        if directory[at + 46 :].startswith(b"model/data/") and directory[at + 20 : at + 28] == bytes(8):
            directory = directory[: at + 20] + size + directory[at + 28 : at + 42] + offset + directory[at + 46 :]
        at += 46
    path.write_bytes(content[:begin] + directory)
    with bounded(10 << 20), pytest.raises(UnknownModel, match="its parts overlap"):
        read_weights(path)


def test_a_directory_that_claims_to_fill_the_file(path: Path) -> None:
    size = 1 << 30
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, size - 4, 4, 0))
    with bounded(20 << 20), pytest.raises(UnknownModel, match=r"pytorch_model\.bin"):
        read_weights(path)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"byteorder": b"big"}, "byte order"),
        ({"data/0": FOUR[:-1]}, "storages"),
        ({"../data.pkl": b""}, "too many values"),
        ({"data.pkl": b"\x80\x02}" + b"0" * LARGEST_PICKLE}, "its table has more than"),
    ],
)
def test_an_archive_that_does_not_fit(path: Path, parts: dict[str, bytes], said: str) -> None:
    with pytest.raises(UnknownModel, match=said):
        read_weights(as_zip(path, pickled({"a": tensor()}), parts))


@pytest.mark.parametrize(
    ("keys", "numbers"),
    [
        (("0",), b""),
        (("0",), struct.pack("<q", 4) + FOUR[:-1]),
        ((), b""),
        (("0", "0"), (struct.pack("<q", 4) + FOUR) * 2),
        (("1",), struct.pack("<q", 4) + FOUR),
        ((0,), struct.pack("<q", 4) + FOUR),
        ((nested(64),), b""),
        (None, b""),
    ],
    ids=range(8),
)
def test_storages_that_do_not_follow(path: Path, keys: Any, numbers: bytes) -> None:
    with pytest.raises(UnknownModel, match=r"pytorch_model\.bin"):
        read_weights(as_pickles(path, pickled({"a": tensor()}), keys, numbers))


def test_every_truncation_is_noticed(path: Path) -> None:
    for write in (as_zip, as_pickles):
        whole = write(path, pickled({"a": tensor()})).read_bytes()
        for end in range(1, len(whole)):
            path.write_bytes(whole[:end])
            with pytest.raises(UnknownModel, match=r"pytorch_model\.bin"):
                read_weights(path)
