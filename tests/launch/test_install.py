"""The sentence that `make` prints on a machine that lacks something."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launch import install
from launch.debian import PackageError
from tests.conftest import REPOSITORY
from tests.launch.clone import copy, make, sentence


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mount.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 15)])
def test_a_python_too_old_or_too_new_is_named(clone: Path, version: tuple[int, int]) -> None:
    said = sentence(make(clone, "run", before=f"sys.version_info = {version}"))
    assert said.startswith("Tolk needs Python 3.11 to 3.14, and this is {}.{}:".format(*version))
    assert not (clone / ".venv").exists()


def test_an_old_python_can_read_far_enough_to_say_so() -> None:
    for module in ("__init__.py", "install.py"):
        ast.parse((REPOSITORY / "launch" / module).read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_missing_python3_venv_is_named(clone: Path, module: str) -> None:
    said = sentence(make(clone, "test", before=f"sys.modules['{module}'] = None"))
    assert said.startswith("python3-venv is missing:")


@pytest.mark.parametrize(
    ("program", "package"), [("chromium", "chromium"), ("prometheus", "prometheus"), ("systemd-analyze", "systemd")]
)
def test_what_the_tests_lack_and_who_installs_it_is_named(clone: Path, program: str, package: str) -> None:
    before = (
        "import os, shutil; which = shutil.which; os.geteuid = lambda: 1;"
        f" shutil.which = lambda name: None if name == '{program}' else which(name) or name"
    )
    said = sentence(make(clone, "test", before=before))
    assert said == f"{package} is missing, and only root can install it (on Debian)."


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "80.5", "８０"])
def test_a_port_that_is_none_is_named(clone: Path, port: str) -> None:
    assert sentence(make(clone, "run", f"PORT={port}")).endswith(
        f"PORT is {port!r}: a port is a number from 1 to 65535."
    )


def test_a_port_in_use_is_named_before_anything_is_set_up(clone: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = sentence(make(clone, "run", PORT=str(port)))
    assert said == f"Port {port} of 127.0.0.1 is in use: choose another, as in `make run PORT={port + 1}`."
    assert not (clone / ".venv").exists()


def test_a_full_disk_is_named(small_disk: Path) -> None:
    clone = copy(small_disk)
    assert sentence(make(clone, "environment")).startswith(f"The disk is full: make room in {clone}")


def test_a_disk_too_full_for_the_broker_is_named(small_disk: Path, free_port: Callable[[], int]) -> None:
    run = [sys.executable, "-m", "launch.service", str(small_disk)]
    environ = {**os.environ, "PORT": str(free_port())}
    done = subprocess.run(run, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"The disk of {small_disk} is full: make room" in done.stdout


@pytest.mark.parametrize("program", [install.BROWSER, install.PROMETHEUS])
def test_a_program_that_cannot_be_installed_is_named(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # this directory has no apt-get
    needed = {install.BROWSER: install.install_chromium, install.PROMETHEUS: install.install_prometheus}[program]
    with pytest.raises(PackageError, match=f"{program} is missing, and only root can install it"):
        needed()
    (tmp_path / program).touch(mode=0o755)
    needed()
