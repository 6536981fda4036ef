"""The units for hosts without containers: systemd accepts them, they have few rights, and their commands exist."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from launch.install import ANALYZER
from tasks.worker.start import GRACE
from tests.conftest import REPOSITORY

UNITS = sorted((REPOSITORY / "compose" / "systemd").glob("*.service"))
BINARIES = "/srv/tolk/.venv/bin"
CALLBACKS = REPOSITORY / "compose" / "systemd" / "callbacks.conf"
EXPOSURE = 25  # the highest exposure level, in tenths from 0 to 100; systemd calls levels up to 50 OK

each = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


def installed(text: str) -> str:
    """The unit with the paths of this checkout in the place of /srv/tolk."""
    return text.replace(BINARIES, str(Path(sys.executable).parent)).replace("/srv/tolk", str(REPOSITORY))


def analyze(unit: Path, directory: Path, *command: str) -> str:
    """The output of systemd-analyze for a unit. Fails the test if its exit code is not 0."""
    if shutil.which(ANALYZER) is None:
        pytest.fail(f"There is no {ANALYZER}: `make test` as root installs it.")
    copy = directory / unit.name
    copy.write_text(installed(unit.read_text()))
    done = subprocess.run([ANALYZER, *command, copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def read(unit: Path) -> configparser.SectionProxy:
    """The section [Service] of a unit; if a setting occurs several times, its last value."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit)
    return parser["Service"]


@each
def test_systemd_finds_nothing_to_complain_about(unit: Path, tmp_path: Path) -> None:
    assert analyze(unit, tmp_path, "verify", "--man=no", "--recursive-errors=no") == ""


@pytest.mark.parametrize("name", ["tolk-web", "tolk-jobs"])
def test_a_unit_may_have_the_secret_of_callbacks(name: str, tmp_path: Path) -> None:
    drop_ins = tmp_path / f"{name}.service.d"
    drop_ins.mkdir()
    shutil.copy(CALLBACKS, drop_ins)
    [unit] = [each for each in UNITS if each.stem == name]
    assert analyze(unit, tmp_path, "verify", "--man=no", "--recursive-errors=no") == ""
    analyze(unit, tmp_path, "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}")
    assert "%d/webhook-secret" in CALLBACKS.read_text()


@each
def test_a_unit_has_few_rights(unit: Path, tmp_path: Path) -> None:
    analyze(unit, tmp_path, "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}")


@each
def test_what_a_unit_starts_there_is_and_takes_its_options(unit: Path) -> None:
    service = read(unit)
    for name in ("ExecStartPre", "ExecStart"):
        if name not in service:
            continue
        program, *arguments = shlex.split(installed(service[name]))
        pool, separator, worker = " ".join(arguments).partition(" -- ")
        commands = [f"{pool} --help"]
        if separator:  # the arguments after it go to the workers
            commands.append(f"-A tasks worker {worker} --help")
        if program.endswith("gunicorn"):
            commands = [f"{pool} --check-config"]
        for command in commands:
            done = subprocess.run([program, *command.split()], cwd=REPOSITORY, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


def test_whoever_is_stopped_has_time_to_finish() -> None:
    seconds = {unit.stem: int(read(unit)["TimeoutStopSec"]) for unit in UNITS}
    assert seconds["tolk-web"] == Settings().max_timeout + 15
    assert seconds["tolk-pool"] >= GRACE + 15
    assert {read(unit)["KillMode"] for unit in UNITS} == {"mixed"}  # with two SIGTERMs a worker finishes nothing


@each
def test_no_secret_is_in_the_environment(unit: Path) -> None:
    text = unit.read_text()
    assert "LoadCredential=broker-url:" in text
    assert "CELERY_BROKER_URL_FILE=%d/broker-url" in text
    assert "CELERY_BROKER_URL=" not in text
    assert "DATABASE_URL=" not in text
