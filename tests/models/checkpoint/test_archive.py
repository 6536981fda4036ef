"""Archives of models, valid and malicious."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from models.checkpoint.archive import LARGEST_TABLE, MOST_ENTRIES, unpack
from models.checkpoint.files import LARGEST_OTHER, LARGEST_WEIGHTS
from models.errors import UnknownModel

Member = tuple[str, bytes]
MODEL = [
    (name, name.encode()) for name in ("config.json", "source.spm", "target.spm", "vocab.json", "model.safetensors")
]
KINDS = [".tar", ".tar.gz", ".tgz", ".zip"]


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def pack(path: Path, members: list[Member]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for name, content in members:
                made.writestr(name, content)
        return path
    with tarfile.open(path, "w:" if path.suffix == ".tar" else "w:gz") as made_of_tape:
        for name, content in members:
            made_of_tape.addfile(member(name, len(content)), io.BytesIO(content))
    return path


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", ["", "./", "opus-mt-fr-de/"])
def test_a_model_at_the_top_or_in_a_folder(tmp_path: Path, into: Path, kind: str, folder: str) -> None:
    others = [(f"{folder}README.md", b"x"), (f"{folder}sub/deep/config.json", b"x"), ("LICENSE", b"x" * 100_000)]
    unpack(pack(tmp_path / f"a{kind}", [*others, *((folder + name, content) for name, content in MODEL)]), into)
    assert {path.name: path.read_bytes() for path in into.iterdir()} == dict(MODEL)


def test_an_archive_made_by_the_programs(tmp_path: Path, into: Path, directory: Path) -> None:
    subprocess.run(["tar", "-czf", tmp_path / "a.tgz", "-C", directory.parent, directory.name], check=True)
    unpack(tmp_path / "a.tgz", into)
    assert (into / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../config.json", "a/../../config.json", "/config.json", "a\\..\\config.json", ".."])
def test_names_that_lead_elsewhere(tmp_path: Path, into: Path, kind: str, name: str) -> None:
    message = rf"a\{kind}: is not a valid archive of a model: .* leads out of the archive"
    with pytest.raises(UnknownModel, match=message):
        unpack(pack(tmp_path / f"a{kind}", [*MODEL, (name, b"x")]), into)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"a{kind}", "into"])


@pytest.mark.parametrize("kind", KINDS)
def test_two_models_or_a_file_twice(tmp_path: Path, into: Path, kind: str) -> None:
    for more in (("b/config.json", b"x"), ("./config.json", b"x")):
        with pytest.raises(UnknownModel, match="the archive has it twice"):
            unpack(pack(tmp_path / f"a{kind}", [MODEL[0], more]), into)
        (into / "config.json").unlink()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("name", ["config.json", "README.md"])
def test_links_and_devices_of_a_tar(tmp_path: Path, into: Path, kind: bytes, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:") as made:
        made.addfile(member(name, kind=kind, link="/etc/passwd"))
    with pytest.raises(UnknownModel, match=f"'{name}' is a link, a device"):
        unpack(tmp_path / "a.tar", into)
    assert not any(into.iterdir())


@pytest.mark.parametrize(
    ("mode", "said"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "a device"), (stat.S_IFIFO, "a device")]
)
def test_links_and_devices_of_a_zip(tmp_path: Path, into: Path, mode: int, said: str) -> None:
    info = zipfile.ZipInfo("config.json")
    info.external_attr = (mode | 0o644) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(info, "/etc/passwd")
    with pytest.raises(UnknownModel, match=f"is {said}"):
        unpack(tmp_path / "a.zip", into)
    assert not any(into.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_more_entries_than_any_model_has(tmp_path: Path, into: Path, kind: str) -> None:
    with pytest.raises(UnknownModel, match=f"more than {MOST_ENTRIES} entries"):
        unpack(pack(tmp_path / f"a{kind}", [(f"x{i}", b"") for i in range(MOST_ENTRIES + 1)]), into)


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("vocab.json", LARGEST_OTHER + 1, "at most"),
        ("model.safetensors", LARGEST_WEIGHTS + 1, "at most"),
        ("README.md", 4 * LARGEST_WEIGHTS, "bytes in them"),
    ],
)
def test_sizes_that_no_model_has(tmp_path: Path, into: Path, name: str, size: int, said: str) -> None:
    """The size of a tar's entry is checked before it is read; a zip has the sizes in its table."""
    (tmp_path / "a.tar").write_bytes(member(name, size).tobuf())
    with pytest.raises(UnknownModel, match=said):
        unpack(tmp_path / "a.tar", into)


def bomb_of_zip(path: Path) -> None:
    """20 MB in 20 kB; the table says that it is one byte."""
    pack(path, [("vocab.json", bytes(LARGEST_OTHER + 1))])
    content = bytearray(path.read_bytes())
    table = content.index(b"PK\x01\x02")
    content[table + 24 : table + 28] = struct.pack("<I", 1)
    path.write_bytes(content)


def test_a_zip_that_lies_about_a_size(tmp_path: Path, into: Path) -> None:
    bomb_of_zip(tmp_path / "a.zip")
    with pytest.raises(UnknownModel, match="is not a valid archive"):
        unpack(tmp_path / "a.zip", into)
    assert sum(path.stat().st_size for path in into.iterdir()) <= 1


def test_a_zip_of_another_kind(tmp_path: Path, into: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as made:
        made.writestr("config.json", "x")
    with pytest.raises(UnknownModel, match="has an unsupported compression"):
        unpack(tmp_path / "a.zip", into)


def long_name(path: Path) -> None:
    """A tar with a name of 2 GiB, in 2 MB."""
    with gzip.open(path, "wb", compresslevel=1) as made:
        made.write(member("././@LongLink", 2 << 30, tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            made.write(bytes(1 << 20))  # the rest of the name is missing, but is not read either


def long_table(path: Path) -> None:
    """A zip with a table of 4 MB."""
    pack(path, [("x" * 60_000 + str(i), b"") for i in range(70)])


@pytest.mark.parametrize(("name", "make"), [("a.tgz", long_name), ("a.zip", long_table)])
def test_what_the_libraries_would_take_whole(
    tmp_path: Path, into: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(tmp_path / name)
    with pytest.raises(UnknownModel, match=f"a table or a name of more than {LARGEST_TABLE} bytes"):
        unpack(tmp_path / name, into)


@pytest.mark.parametrize("kind", KINDS)
def test_archives_that_are_cut_or_are_none(tmp_path: Path, into: Path, kind: str) -> None:
    whole = pack(path := tmp_path / f"a{kind}", [("vocab.json", os.urandom(100_000))]).read_bytes()
    for content in (b"", b"x" * 1000, whole[: len(whole) // 2], whole[:-20_000]):
        path.write_bytes(content)
        with pytest.raises(UnknownModel, match="is not a valid archive of a model"):
            unpack(path, into)
        for found in into.iterdir():
            found.unlink()
