"""Installs what a `make` target needs: a supported Python, the virtual environment, RabbitMQ, and more for tests.

    python3 -m launch.install [run | dev | test | lock]

The system's python3 runs it, with the standard library only. An old Python must be able to parse this file, so as to
report that it is too old: it may have no syntax newer than 3.6.
"""

import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    sys.exit(
        f"Tolk needs Python 3.11 to 3.14, and this is {sys.version_info[0]}.{sys.version_info[1]}:"
        " choose another, as in `make run PYTHON=python3.12`."
    )

import errno
import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from typing import IO

from launch import debian, environment
from launch.command import full, is_full, say
from launch.debian import PackageError
from launch.directory import DIRECTORY, alone, end_leftovers
from launch.errors import SetupError, StartError
from launch.output import Output
from launch.ports import web_address
from launch.postgresql import PrivatePostgreSQL
from launch.rabbitmq import PrivateRabbitMQ, RabbitMQError
from launch.service import given

BROWSER = "chromium"
PROMETHEUS = "prometheus"
ANALYZER = "systemd-analyze"


def main(purpose: str) -> None:
    """Installs the environment, and what `purpose` needs besides: RabbitMQ for "run", more Debian packages for "test".

    The environment has what runs the service and, for "dev" and "test", what they need. "lock" only writes
    constraints.txt. Errors end the process with one sentence.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_venv()
        if purpose == "run":  # before an installation of minutes, report what would stop the service
            with alone(DIRECTORY):
                end_leftovers(DIRECTORY, Output(sys.stdout.fileno()))
                web_address(os.environ)
        if purpose == "lock":
            environment.lock()
            return
        if purpose == "test" or (purpose == "run" and not given(os.environ, "CELERY_BROKER_URL")):
            install_rabbitmq()
        if purpose == "test":
            install_postgresql()
            install_chromium()
            install_prometheus()
            install_systemd()
        extras = environment.EVERYTHING if purpose in ("dev", "test") else environment.SERVICE
        environment.install(environment.ENVIRONMENT, extras)
    except (SetupError, StartError, RabbitMQError, PackageError) as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(full() if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error))
    except KeyboardInterrupt:
        sys.exit("Interrupted. Run the same command again to continue.")


def check_venv() -> None:
    """Raises SetupError if python3 comes without the modules that make virtual environments."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupError("python3-venv is missing: install it (on Debian: apt-get install python3-venv).")


def install_rabbitmq() -> None:
    """Installs Debian's RabbitMQ, if there is none. Raises RabbitMQError, for example without root."""
    if not PrivateRabbitMQ.installed():
        install_package("RabbitMQ", PrivateRabbitMQ.install)


def install_postgresql() -> None:
    """Installs PostgreSQL, which some tests use, if there is none. Raises PackageError, for example without root."""
    if not PrivatePostgreSQL.installed():
        install_package("PostgreSQL", PrivatePostgreSQL.install)


def install_chromium() -> None:
    """Installs Chromium, the browser of the tests, if there is none. Raises PackageError, for example without root."""
    if shutil.which(BROWSER) is None:
        install_package("Chromium", lambda log: debian.install(BROWSER, log))


def install_prometheus() -> None:
    """Installs Prometheus, which tests of alerts and dashboards use, if there is none. Raises PackageError."""

    def install_stopped(log: IO[bytes]) -> None:
        debian.install(PROMETHEUS, log)
        debian.stop(PROMETHEUS, log)

    if shutil.which(PROMETHEUS) is None:
        install_package("Prometheus", install_stopped)


def install_systemd() -> None:
    """Installs systemd, which checks the units of compose/systemd, if there is none. Raises PackageError."""
    if shutil.which(ANALYZER) is None:
        install_package("systemd", lambda log: debian.install("systemd", log))


def install_package(name: str, install: Callable[[IO[bytes]], None]) -> None:
    """Runs `install` with a log. If it fails, prints the log and raises its error, or SetupError if the disk is
    full."""
    if os.geteuid() == 0:
        say(f"installing {name} (apt-get install)")
    with tempfile.TemporaryFile() as log:
        try:
            install(log)
        except (RabbitMQError, PackageError):
            log.seek(0)
            output = log.read().decode(errors="replace")
            if is_full(output):
                raise SetupError(full()) from None
            print(output, end="", file=sys.stderr)
            raise


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
