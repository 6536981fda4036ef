"""The files of a clone that the set-up reads, and the output of `make` in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

NEEDED = ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE", "launch")
NO_NETWORK = {
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_NO_CACHE_DIR": "1",
}


def copy(directory: Path) -> Path:
    """A directory with the files of a clone that the set-up reads."""
    for name in NEEDED:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / name, directory)
    return directory


def make(clone: Path, *arguments: str, before: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs make with a nearly empty environment, and a python3 that runs `before` before the module."""
    stub = clone / "bin" / "python3"
    stub.parent.mkdir(exist_ok=True)
    start = f"import runpy, sys; {before}; sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__')"
    stub.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -c "{start}" "$@"\n' if before else "")
    stub.chmod(0o755)
    python = str(stub) if before else sys.executable
    return subprocess.run(
        ["make", *arguments, f"PYTHON={python}"],
        cwd=clone,
        env={"PATH": os.environ["PATH"], "HOME": str(clone), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The line of the output that says why nothing was done."""
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith(("make: ", "set-up | "))]
    assert len(said) == 1, said
    return said[0]


def ask(clone: Path, expression: str) -> str:
    """The output of a clone's set-up."""
    command = [sys.executable, "-c", f"from launch import environment; print({expression}, end='')"]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True).stdout
