from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models.checkpoint.files import LARGEST_OTHER, opened, quote, read, read_json, weights_path
from models.errors import UnknownModel


def test_links_to_regular_files_are_followed(tmp_path: Path) -> None:
    """Hugging Face's cache has such links: snapshots/REVISION/config.json -> ../../blobs/HASH."""
    blob, snapshot = tmp_path / "blobs" / "0a1b", tmp_path / "snapshots" / "main"
    blob.parent.mkdir()
    snapshot.mkdir(parents=True)
    blob.write_text('{"a": 1}')
    (snapshot / "config.json").symlink_to("../../blobs/0a1b")
    assert read_json(snapshot / "config.json") == {"a": 1}


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_OTHER + 1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "regular file"),
        (lambda path: path.symlink_to("/proc/self/maps"), "0 bytes"),
        (lambda path: path.symlink_to("/proc/kmsg"), "0 bytes"),
        (lambda path: path.symlink_to(path.parent), "regular file"),
        (lambda path: os.mkfifo(path), "regular file"),
        (lambda path: path.mkdir(), "regular file"),
        (lambda path: path.touch(), "0 bytes"),
        (sparse, rf"{LARGEST_OTHER + 1} bytes; 1 to {LARGEST_OTHER} were expected"),
    ],
)
@pytest.mark.timeout(10)
def test_anything_else_is_not_read(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "config.json"
    make(path)
    with pytest.raises(UnknownModel, match=rf"config\.json: .*{said}"):
        read(path)


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000])
def test_names_that_the_system_refuses(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownModel):
        read(tmp_path / name)


def test_trouble_while_reading_is_the_files(tmp_path: Path) -> None:
    (tmp_path / "source.spm").write_bytes(b"a")
    with (
        pytest.raises(UnknownModel, match=r"source\.spm: cannot be read: Input/output error"),
        opened(tmp_path / "source.spm"),
    ):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"1",
        b"\xff",
        b"\xff\xfe{\x00}\x00",
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'{"a": 1' + b"0" * 5000 + b"}",
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": "\x00"}',
    ],
    ids=range(11),
)
def test_what_is_no_json_object_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UnknownModel, match=r"config\.json: (is not valid JSON|a JSON object was expected)"):
        read_json(tmp_path / "config.json", required=False)


@pytest.mark.timeout(30)
def test_a_name_that_is_twice_among_a_million_is_found_at_once(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text("{" + ",".join(f'"{i}":0' for i in [*range(1_000_000), 999_999]) + "}")
    with pytest.raises(UnknownModel, match=r"vocab\.json: is not valid JSON: '999999' occurs twice"):
        read_json(path)


def test_a_file_that_may_be_missing_but_is_there_is_read(tmp_path: Path) -> None:
    assert read_json(tmp_path / "generation_config.json", required=False) == {}
    (tmp_path / "generation_config.json").symlink_to("nowhere")
    with pytest.raises(UnknownModel, match=r"generation_config\.json"):
        read_json(tmp_path / "generation_config.json", required=False)


def test_what_a_file_says_is_fit_for_a_log() -> None:
    assert quote("\x1b[31m\n\ud800é\u202e") == "\\x1b[31m\\n\\ud800é\\u202e"
    assert quote("x" * 10_000) == "x" * 200 + "…"
    nested: list[object] = []
    for _ in range(10_000):
        nested = [nested]
    assert len(quote(nested)) < 200


def test_safetensors_goes_first_and_is_not_passed_over_when_it_is_broken(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"a")
    assert weights_path(tmp_path).name == "pytorch_model.bin"
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    assert weights_path(tmp_path).name == "model.safetensors"


def test_a_directory_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"has neither model\.safetensors nor pytorch_model\.bin"):
        weights_path(tmp_path)
