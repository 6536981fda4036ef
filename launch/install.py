"""What every `make` target needs first: a Python that fits, the virtual environment, a RabbitMQ; tests need more.

    python3 -m launch.install [run | dev | test | lock]

Run by the system's python3, with the standard library only. An old Python must still parse this file to say that it
is too old: no syntax newer than 3.6.
"""

import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    sys.exit(
        f"Tolk needs Python 3.11 to 3.14, and this is {sys.version_info[0]}.{sys.version_info[1]}:"
        " name another, as in `make run PYTHON=python3.12`."
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
    """Sets up the environment and what `purpose` needs besides: "run" a RabbitMQ, "test" more of Debian's packages.

    The environment holds what runs the service; for "dev" and "test" it also holds what they need.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_venv()
        if purpose == "run":  # what would stop the service is said before the minutes that an installation takes
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
        sys.exit("Interrupted; the same command goes on from here.")


def check_venv() -> None:
    """Raises SetupError where python3 comes without what makes virtual environments."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupError("python3-venv is missing: install it (on Debian: apt-get install python3-venv).")


def install_rabbitmq() -> None:
    """Debian's package, where there is none and we are root. Raises RabbitMQError."""
    if not PrivateRabbitMQ.installed():
        install_package("RabbitMQ", PrivateRabbitMQ.install)


def install_postgresql() -> None:
    """The database that some tests use: Debian's package, where there is none and we are root. Raises PackageError."""
    if not PrivatePostgreSQL.installed():
        install_package("PostgreSQL", PrivatePostgreSQL.install)


def install_chromium() -> None:
    """The browser that the tests drive: Debian's package, where there is none and we are root. Raises PackageError."""
    if shutil.which(BROWSER) is None:
        install_package("Chromium", lambda log: debian.install(BROWSER, log))


def install_prometheus() -> None:
    """What alerts and dashboards are tested with: Debian's package, likewise. Raises PackageError."""

    def install_stopped(log: IO[bytes]) -> None:
        debian.install(PROMETHEUS, log)
        debian.stop(PROMETHEUS, log)

    if shutil.which(PROMETHEUS) is None:
        install_package("Prometheus", install_stopped)


def install_systemd() -> None:
    """What reads the units of compose/systemd: Debian's package, where there is none and we are root, which starts
    nothing. Raises PackageError."""
    if shutil.which(ANALYZER) is None:
        install_package("systemd", lambda log: debian.install("systemd", log))


def install_package(name: str, install: Callable[[IO[bytes]], None]) -> None:
    """Installs it, and shows what was said where that fails."""
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
