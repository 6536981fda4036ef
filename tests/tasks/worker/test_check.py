"""The command that checks models.toml, as an operator runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FR_EN = '[models.fr-en]\nreference = "fr-en"\npairs = [{ source = "fr", target = "en" }]\nexample = "Il pleut."\n'
WRONG = {
    "hub": ('reference = "Helsinki-NLP/opus-mt-fr-de"', "write hf:Helsinki-NLP/opus-mt-fr-de."),
    "token": ('reference = "fr-en"\ntoken', "has no target token >>eng<<. It has: none."),
    "checksum": (f'reference = "fr-en"\nchecksum = "sha256:{"0" * 64}"', "sha256:"),
}


def check(path: Path, *names: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tasks.worker.check", *names],
        env={**os.environ, "TOLK_MODELS": str(path), "TOLK_GPU": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.timeout(300)
def test_every_model_that_cannot_be_used_is_named_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    pair = '{ source = "fr", target = "en" }'
    entries = [FR_EN]
    for name, (entry, _) in WRONG.items():
        own = pair.replace(" }", ', token = ">>eng<<" }') if entry.endswith("token") else pair
        entries.append(f"[models.{name}]\n{entry.removesuffix('token')}\nwarm = false\npairs = [{own}]\n")
    path.write_text("\n".join(entries))
    status, said = check(path)
    assert status == 1
    lines = dict(line.split(": ", 1) for line in said.splitlines())
    assert lines.keys() == {"fr-en", *WRONG}
    assert lines["fr-en"].startswith("can be used, fr → en, version ")
    for name, (_, reason) in WRONG.items():
        assert lines[name].startswith("cannot be used: ")
        assert reason in lines[name]
    assert check(path, "fr-en")[0] == 0


@pytest.mark.timeout(300)
def test_a_file_or_a_name_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    assert check(path) == (2, f"{path}: cannot be read (No such file or directory).\n")
    path.write_text(FR_EN)
    assert check(path, "en-fr") == (2, "There is no model 'en-fr' in models.toml. It has: fr-en.\n")
