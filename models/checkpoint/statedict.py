"""Reads the tensors in a file that torch.save wrote, without executing any of it.

Such a file contains pickles, which are programs. torch.load(weights_only=True) allows them to call a few functions, but
with these a file of 2 KB can take all memory, or ask for a hash that takes a century. This module reads the
instructions one by one (pickletools) and accepts only those that describe a table of tensors of floats.

Checkpoints come in two formats. Since PyTorch 1.6 a file is a zip archive with one pickle and a part for each storage.
Before, it was a sequence of pickles (a magic number, the version, the system, the table, the storages' keys), followed
by the storages.
"""

from __future__ import annotations

import io
import math
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickletools import genops
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from torch import Tensor

from models.checkpoint.files import LARGEST_WEIGHTS, opened

LARGEST_PICKLE = 1 << 20  # bytes; the pickle has about 200 for each tensor

_ZIP = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older format
_DTYPES = {
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Name(str):
    """The name of something that a pickle would import: a module, and a function or class in it."""


class _Storage(NamedTuple):
    """A storage: `length` numbers of one type, under `key` in the file."""

    key: str
    dtype: torch.dtype
    length: int

    @property
    def size(self) -> int:
        """Bytes of the storage."""
        return self.length * self.dtype.itemsize


class _View(NamedTuple):
    """A tensor: a view of a storage, with the arguments of torch.as_strided."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Sips(io.BufferedReader):
    """A file that returns at most LARGEST_PICKLE bytes per read, because the directory of a zip archive may claim to be
    as large as the file."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(LARGEST_PICKLE if size is None or size < 0 else min(size, LARGEST_PICKLE))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors by name, on the CPU. Their storages together are no larger than the file.

    Raises UnknownModel as `opened` does, and any other exception (ValueError, IndexError, …) for a malformed file.
    """
    with opened(path, LARGEST_WEIGHTS) as file:
        size = path.stat().st_size
        return _from_zip(file, size) if file.peek().startswith(_ZIP) else _from_pickles(file, size)


def _from_zip(file: io.BufferedReader, size: int) -> dict[str, Tensor]:
    with zipfile.ZipFile(_Sips(file.raw)) as archive:
        parts = {part.filename: part for part in archive.infolist()}
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts.values()):
            raise ValueError("its parts are compressed, but torch.save does not compress")
        if len(parts) < len(archive.infolist()) or sum(part.file_size for part in parts.values()) > size:
            raise ValueError("its parts overlap")

        def content(name: str) -> bytearray:
            if name not in parts:
                raise ValueError(f"it has no part {name}")
            with archive.open(parts[name]) as part:
                return _read(cast("io.BufferedIOBase", part), parts[name].file_size)

        [table] = (name for name in parts if name.endswith("/data.pkl"))
        if parts[table].file_size > LARGEST_PICKLE:
            raise ValueError(f"its table has more than {LARGEST_PICKLE} bytes")
        root = table.removesuffix("data.pkl")
        if f"{root}byteorder" in parts:
            _check_byte_order(little=content(f"{root}byteorder") == b"little")
        views = _table(io.BytesIO(content(table)))
        keys = {view.storage.key for view in views.values()}
        return _tensors(views, {key: content(f"{root}data/{key}") for key in keys})


def _from_pickles(file: io.BufferedReader, size: int) -> dict[str, Tensor]:
    head = io.BytesIO(file.read(LARGEST_PICKLE))
    if _unpickle(head) != _MAGIC:
        raise ValueError("it was not written by torch.save")
    _version, system = _unpickle(head), _unpickle(head)
    _check_byte_order(little=system["little_endian"])
    views, keys = _table(head), _unpickle(head)
    storages = {view.storage.key: view.storage for view in views.values()}
    contents: dict[str, bytearray] = {}
    file.seek(head.tell())
    for key in keys:
        if not isinstance(key, str) or key not in storages or key in contents or storages[key].size > size:
            raise ValueError("its storages are not those that its tensors need")
        file.seek(8, io.SEEK_CUR)  # skips the storage's length, which the table has, too
        contents[key] = _read(file, storages[key].size)
        size -= storages[key].size
    return _tensors(views, contents)


def _read(file: io.BufferedIOBase, size: int) -> bytearray:
    content, end = bytearray(size), 0
    while count := file.readinto(memoryview(content)[end : end + LARGEST_PICKLE]):
        end += count
    if end < size:
        raise ValueError("it is truncated")
    return content


def _check_byte_order(*, little: bool) -> None:
    if little != (sys.byteorder == "little"):
        raise ValueError("its byte order is not that of this computer")


def _table(file: BinaryIO) -> dict[str, _View]:
    views = _unpickle(file)
    if not isinstance(views, dict) or not all(isinstance(view, _View) for view in views.values()):
        raise ValueError("a table of tensors was expected")
    return views


def _tensors(views: Mapping[str, _View], contents: Mapping[str, bytearray]) -> dict[str, Tensor]:
    tensors = {}
    for name, (storage, offset, shape, strides) in views.items():
        if storage.size != len(contents.get(storage.key, ())) or math.prod(shape) > storage.length:
            raise ValueError("its storages do not have the lengths that its tensors need")
        numbers = torch.frombuffer(contents[storage.key], dtype=storage.dtype)
        tensors[name] = numbers.as_strided(shape, strides, offset)  # raises if the view leaves the storage
    return tensors


def _unpickle(file: BinaryIO) -> Any:
    """The value of a pickle. A tensor becomes a _View; an OrderedDict becomes a dict, without attributes.

    Python's `pickletools` documents the instructions. Keys of dicts must be strings, because hashing a nested tuple may
    take for ever.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def pop(count: int) -> list[Any]:
        place = len(stack) - count
        top = stack[place:]
        del stack[place:]
        return top

    def pop_to_mark() -> list[Any]:
        return pop(len(stack) - marks.pop())

    for instruction, argument, _ in genops(file):
        match instruction.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE" as name:
                stack.append(_CONSTANTS[name])
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack.append(tuple(pop(int(name[-1]))))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND" | "APPENDS" as name:
                items = pop_to_mark() if name == "APPENDS" else pop(1)
                stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS" as name:
                items = pop_to_mark() if name == "SETITEMS" else pop(2)
                _update(stack[-1], items[::2], items[1::2])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                stack.append(_call(*pop(2)))
            case "BUILD":  # sets attributes of an OrderedDict, which are not needed
                stack.pop()
            case name:
                raise ValueError(f"its instruction {name} has no place in a table of tensors")
    raise ValueError("its table does not end")


def _update(table: dict[str, Any], names: list[Any], values: list[Any]) -> None:
    for name, value in zip(names, values, strict=True):
        if not isinstance(name, str) or name in table:
            raise ValueError("a name is not a string, or occurs twice")
        table[name] = value


def _storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", _Name() as kind, str(key), str(), int(length), *part):
            if kind not in _DTYPES:
                raise ValueError(f"floats were expected, not {kind}")
            if part in ([], [None]):  # in the older format, a storage may be part of another one; that is not supported
                return _Storage(key, _DTYPES[kind], length)
    raise ValueError("a storage was expected")


def _call(function: Any, arguments: Any) -> Any:
    """The result of a function that a table of tensors needs. Raises ValueError for any other function."""
    match function, arguments:
        case "torch._utils _rebuild_tensor_v2", (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            if max(len(shape), len(strides)) > 4 or not all(type(number) is int for number in (*shape, *strides)):
                raise ValueError("a tensor's shape is not made of integers, or has more than four dimensions")
            return _View(storage, offset, shape, strides)
        case "torch._utils _rebuild_parameter", (_View() as view, *_):
            return view
        case "collections OrderedDict", ():
            return {}
    raise ValueError(f"it calls {function if isinstance(function, _Name) else 'something'}; tensors were expected")
