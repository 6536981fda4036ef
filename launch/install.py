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

import configparser
import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from launch import debian
from launch.debian import PackageError
from launch.output import Output
from launch.postgresql import PrivatePostgreSQL
from launch.rabbitmq import PrivateRabbitMQ, RabbitMQError
from launch.service import DIRECTORY, StartError, alone, end_leftovers, given, web_address

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"
# The extras of setup.cfg: what runs the service, and what checks, tests and measures it besides.
SERVICE = "web,worker"
EVERYTHING = f"{SERVICE},dev"
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"  # elsewhere torch's build for Linux is the one for CUDA
QUIET_SECONDS = 20.0
BROWSER = "chromium"
PROMETHEUS = "prometheus"
ANALYZER = "systemd-analyze"

FULL = "The disk is full: make room in {} and in {}, and run the same command again."
OFFLINE = "The package index cannot be reached: check the network (or HTTPS_PROXY), and run the same command again."


class SetupError(Exception):
    """The machine lacks something; the message says what, and what to do."""


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
            lock()
            return
        if purpose == "test" or (purpose == "run" and not given(os.environ, "CELERY_BROKER_URL")):
            install_rabbitmq()
        if purpose == "test":
            install_postgresql()
            install_chromium()
            install_prometheus()
            install_systemd()
        install(ENVIRONMENT, EVERYTHING if purpose in ("dev", "test") else SERVICE)
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


def install(environment: Path, extras: str) -> None:
    """Brings the environment up to constraints.txt and these extras of setup.cfg; goes on where it stopped.

    Does nothing where it holds them already, and takes nothing away where it holds more. The stamp is written last, so
    that an environment without one is known to be incomplete.
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
        say("installing the dependencies: some minutes the first time")
        first = [line for line in CONSTRAINTS.read_text().split() if line.startswith(("torch==", "setuptools=="))]
        pip(environment, "install", "--no-deps", *cpu_builds(), *first)
        wanted = ["-c", str(CONSTRAINTS), "-e", f"{ROOT}[{extras}]"]
        pip(environment, "install", "--no-build-isolation", "--config-settings", "editable_mode=compat", *wanted)
        stamp.write_text(fingerprint(environment, extras))
        say(f"the environment is complete ({time.monotonic() - started:.0f} s)")


def fingerprint(environment: Path, extras: str) -> str:
    """What the environment depends on: the files and extras that say what goes in, this Python, the place, the GPU."""
    digest = hashlib.sha256()
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    digest.update(f"{extras} {sys.version} {environment} {has_gpu()}".encode())
    return digest.hexdigest()


def usable(environment: Path) -> bool:
    """Whether what is there can be completed: made by this Python, for this place, with pip, and fit for the GPU."""
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
    """An empty environment with pip, which is put in apart because `venv` keeps to itself what went wrong with it."""
    run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment)])
    run([python(environment), "-m", "ensurepip", "--upgrade", "--default-pip"])


def forget_interrupted(environment: Path) -> None:
    """Lets pip install again what it was writing when it was killed: INSTALLER is the last but one thing it writes."""
    for metadata in environment.glob("lib/*/site-packages/*.dist-info"):
        if not (metadata / "INSTALLER").exists():
            shutil.rmtree(metadata)


def has_gpu() -> bool:
    """Whether an NVIDIA driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists()


def cpu_builds() -> list[str]:
    """pip's options for torch without CUDA, where no GPU would use it; an index that does not answer is passed over."""
    return [] if has_gpu() else ["--retries", "0", "--extra-index-url", CPU_BUILDS]


def lock() -> None:
    """Writes constraints.txt: the newest version of everything that setup.cfg allows, for the oldest Python we take."""
    if sys.version_info[:2] != (3, 11):
        raise SetupError("constraints.txt is made with Python 3.11, the oldest that Tolk takes: PYTHON=python3.11.")
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


def pip(environment: Path, *arguments: str) -> list[str]:
    """Runs pip, says what takes long, and returns its lines. Raises SetupError, with all that pip said."""
    options = ["--disable-pip-version-check", "--no-input"]
    if arguments[0] == "install":
        options += ["--progress-bar", "off", "--root-user-action", "ignore"]
    return run([python(environment), "-m", "pip", *arguments, *options])


def python(environment: Path) -> str:
    return str(environment / "bin" / "python")


def run(command: list[str]) -> list[str]:
    """Runs the command, shows its progress, and returns the lines of its output."""
    started = time.monotonic()
    lines = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in output(process):
                if line is None:
                    say(f"  still at it ({time.monotonic() - started:.0f} s)")
                    continue
                lines.append(line)
                if progress(line):
                    say(f"  {progress(line)}")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise failure(command, lines)
    return lines


def output(process: "subprocess.Popen[str]") -> Iterator["str | None"]:
    """The lines as they come, and None whenever there was none for a while."""
    lines = queue.SimpleQueue()  # type: queue.SimpleQueue[str | None]

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line.rstrip())
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while True:
        try:
            line = lines.get(timeout=QUIET_SECONDS)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line


def progress(line: str) -> "str | None":
    """What a person wants to read of pip's output: what is large, and what is slow."""
    large = re.match(r"\s*Downloading (?:\S*/)?([^-]+)-([^-]+)-\S+ \(([\d.]+ [MG]B)\)", line)
    if large:
        return "downloading {} {} ({})".format(*large.groups())
    if line.startswith("Installing collected packages:"):
        return f"installing {line.count(',') + 1} packages"
    return None


def failure(command: list[str], lines: list[str]) -> SetupError:
    """One sentence for the causes that people meet; else everything that was said."""
    said = "\n".join(lines)
    if is_full(said):
        return SetupError(full())
    if any(sign in said for sign in ("new connection", "ConnectTimeoutError", "timed out", "(from versions: none)")):
        return SetupError(OFFLINE)
    return SetupError("\n".join([*lines, f"`{' '.join(command)}` failed: see above."]))


def is_full(said: str) -> bool:
    return any(sign in said for sign in ("No space left on device", "Disk quota exceeded", "enough free space"))


def full() -> str:
    return FULL.format(ROOT, tempfile.gettempdir())


@contextlib.contextmanager
def one_at_a_time(environment: Path) -> Iterator[None]:
    """Two commands at once: the second waits for the first."""
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


def say(line: str) -> None:
    print(f"set-up | {line}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
