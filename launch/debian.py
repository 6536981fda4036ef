"""Installs Debian packages, for what is not in Python's package index. Standard library only."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import IO


class PackageError(Exception):
    """The package could not be installed; the message says why."""


def install(package: str, log: int | IO[bytes]) -> None:
    """Installs a package and its dependencies, and writes apt-get's output to `log`. Raises PackageError."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise PackageError(f"{package} is missing, and only root can install it (on Debian).")
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ([*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", package]):
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ).returncode:
            raise PackageError(f"`{' '.join(command)}` failed; its output says why.")


def stop(service: str, log: int | IO[bytes]) -> None:
    """Stops the service that Debian starts with a package, and keeps it from starting with the machine."""
    for command in (["update-rc.d", service, "disable"], ["service", service, "stop"]):
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
