"""Makes the virtual environment, keeps it up to date with setup.cfg and constraints.txt, and knows if it is complete.

Standard library only.
"""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from launch.command import ROOT, run, say
from launch.errors import SetupError

ENVIRONMENT = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"
# The extras of setup.cfg: those that run the service, and those that check, test and measure it as well.
SERVICE = "web,worker"
EVERYTHING = f"{SERVICE},dev"
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"  # the package index has torch for Linux only with CUDA


def install(environment: Path, extras: str) -> None:
    """Installs these extras of setup.cfg at the versions of constraints.txt. Continues an interrupted installation.

    Does nothing if the environment has them already, and removes nothing if it has more. The stamp is written last, so
    an environment without one is incomplete. Raises SetupError.
    """
    stamp = environment / "complete"
    with one_at_a_time(environment):
        if stamp.is_file() and stamp.read_text() in (fingerprint(environment, each) for each in (extras, EVERYTHING)):
            return
        started = time.monotonic()
        stamp.unlink(missing_ok=True)
        if not usable(environment):
            say(f"making a virtual environment in {environment}")
            make(environment)
        forget_interrupted(environment)
        say("installing the dependencies (the first time takes minutes)")
        first = [line for line in CONSTRAINTS.read_text().split() if line.startswith(("torch==", "setuptools=="))]
        pip(environment, "install", "--no-deps", *cpu_builds(), *first)
        wanted = ["-c", str(CONSTRAINTS), "-e", f"{ROOT}[{extras}]"]
        pip(environment, "install", "--no-build-isolation", "--config-settings", "editable_mode=compat", *wanted)
        stamp.write_text(fingerprint(environment, extras))
        say(f"the environment is complete ({time.monotonic() - started:.0f} s)")


def fingerprint(environment: Path, extras: str) -> str:
    """A hash of what the environment depends on: the lists of packages, the extras, the Python, the path, the GPU."""
    digest = hashlib.sha256()
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    digest.update(f"{extras} {sys.version} {environment} {has_gpu()}".encode())
    return digest.hexdigest()


def usable(environment: Path) -> bool:
    """Whether the environment can be completed: this Python made it for this path, with pip, and its torch fits the
    GPU."""
    try:
        configuration = (environment / "pyvenv.cfg").read_text()
    except FileNotFoundError:
        return False
    version = ".".join(map(str, sys.version_info[:3]))
    if f"version = {version}\n" not in configuration or not configuration.rstrip().endswith(f" {environment}"):
        return False
    if has_gpu() and any(environment.glob("lib/*/site-packages/torch-*+cpu.dist-info")):
        return False
    return subprocess.run([python(environment), "-m", "pip", "--version"], capture_output=True).returncode == 0


def make(environment: Path) -> None:
    """Makes an environment with pip alone. pip is installed separately, because `venv` hides the errors of doing so."""
    run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment)])
    run([python(environment), "-m", "ensurepip", "--upgrade", "--default-pip"])


def forget_interrupted(environment: Path) -> None:
    """Deletes the metadata of packages that pip was writing when it was killed, so that it installs them again. Such
    packages lack INSTALLER, the last file but one that pip writes."""
    for metadata in environment.glob("lib/*/site-packages/*.dist-info"):
        if not (metadata / "INSTALLER").exists():
            shutil.rmtree(metadata)


def has_gpu() -> bool:
    """Whether an NVIDIA driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists()


def cpu_builds() -> list[str]:
    """pip's options for torch without CUDA, if there is no GPU. pip skips the index if it does not answer."""
    return [] if has_gpu() else ["--retries", "0", "--extra-index-url", CPU_BUILDS]


def lock() -> None:
    """Writes constraints.txt: the newest versions that setup.cfg allows, for the oldest Python that Tolk supports."""
    if sys.version_info[:2] != (3, 11):
        raise SetupError("constraints.txt is made with Python 3.11, the oldest that Tolk supports: PYTHON=python3.11.")
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    wanted = [settings["options"]["install_requires"], *settings["options.extras_require"].values()]
    with tempfile.TemporaryDirectory() as directory:
        environment = Path(directory) / "venv"
        make(environment)
        torch = next(line for line in "\n".join(wanted).split() if line.startswith("torch=="))
        pip(environment, "install", "--no-deps", *cpu_builds(), torch)
        pip(environment, "install", "setuptools>=77", *" ".join(wanted).split())
        frozen = pip(environment, "freeze", "--all", "--exclude", "pip")
    CONSTRAINTS.write_text("".join(f"{line.partition('+')[0]}\n" for line in frozen))
    say(f"{CONSTRAINTS.name}: {len(frozen)} versions")


def pip(environment: Path, *arguments: str) -> list[str]:
    """Runs pip, shows its progress, and returns the lines of its output. Raises SetupError."""
    options = ["--disable-pip-version-check", "--no-input"]
    if arguments[0] == "install":
        options += ["--progress-bar", "off", "--root-user-action", "ignore"]
    return run([python(environment), "-m", "pip", *arguments, *options])


def python(environment: Path) -> str:
    return str(environment / "bin" / "python")


@contextlib.contextmanager
def one_at_a_time(environment: Path) -> Iterator[None]:
    """Locks the environment: if two commands install at once, the second waits for the first."""
    directory = os.open(environment.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another command that is installing")
        fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(directory)
