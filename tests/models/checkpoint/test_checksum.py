from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from models.checkpoint.checksum import Checksum, check_syntax
from models.errors import BadInput, UnknownModel


def test_the_checksum_is_what_coreutils_say(directory: Path) -> None:
    (directory / "pytorch_model.bin").write_bytes(b"not looked at, beside the other")
    (directory / "README.md").write_text("nor this")
    command = "sha256sum -- *.json *.spm model.safetensors | LC_ALL=C sort | sha256sum"
    said = subprocess.run(command, shell=True, cwd=directory, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert str(Checksum.of(directory)) == f"sha256:{said.split()[0]}"


def test_its_lines_are_those_that_sha256sum_checks(directory: Path) -> None:
    checksum = Checksum.of(directory)
    (directory / "SHA256SUMS").write_text(checksum.lines)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=directory, check=True)
    assert Checksum.parse(checksum.lines) == checksum


def test_the_version_is_that_of_the_weights(directory: Path) -> None:
    weights = (directory / "model.safetensors").read_bytes()
    assert Checksum.of(directory).version == hashlib.sha256(weights).hexdigest()[:12]


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer_config.json", "source.spm", "model.safetensors"])
def test_every_file_counts(directory: Path, name: str) -> None:
    before = Checksum.of(directory)
    path = directory / name
    path.write_bytes(path.read_bytes() + b" ")
    assert str(Checksum.of(directory)) != str(before)
    path.unlink()
    if name == "tokenizer_config.json":  # this file is optional
        assert str(Checksum.of(directory)) != str(before)
    else:
        with pytest.raises(UnknownModel, match=name):
            Checksum.of(directory)


@pytest.mark.parametrize("checksum", ["", "sha256:", "sha256:" + "A" * 64, "0" * 64, "md5:" + "0" * 64])
def test_what_is_no_checksum(checksum: str) -> None:
    with pytest.raises(BadInput, match="sha256: and 64 hexadecimal digits"):
        check_syntax(checksum)
