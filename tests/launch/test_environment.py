"""The conditions under which the virtual environment is set up again, completed, or left alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch import environment
from tests.launch.clone import NO_NETWORK, ask, make, sentence


def test_no_network_is_named_and_the_environment_not_taken_for_complete(clone: Path) -> None:
    done = make(clone, "environment", **NO_NETWORK)
    assert sentence(done).startswith("The package index cannot be reached:")
    assert (clone / ".venv" / "bin" / "python").exists()
    assert not (clone / ".venv" / "complete").exists()


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (environment.SERVICE, environment.SERVICE),
        (environment.EVERYTHING, environment.EVERYTHING),
        (environment.EVERYTHING, environment.SERVICE),
    ],
)
def test_an_environment_that_holds_what_is_wanted_is_left_alone(
    held: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "complete").write_text(environment.fingerprint(tmp_path, held))
    environment.install(tmp_path, wanted)
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["complete"]


def test_what_runs_the_service_is_not_taken_for_what_tests_need(clone: Path) -> None:
    stamp = clone / ".venv" / "complete"
    stamp.parent.mkdir()
    stamp.write_text(ask(clone, "environment.fingerprint(environment.ENVIRONMENT, environment.SERVICE)"))
    done = make(clone, "environment")
    assert (done.returncode, done.stdout) == (0, "")
    done = make(clone, "dev", **NO_NETWORK)
    assert "set-up | installing the dependencies" in done.stdout
    assert sentence(done).startswith("The package index cannot be reached:")
    assert not stamp.exists()  # after an interruption `make run` checks again, too


def test_the_second_of_two_commands_waits_for_the_first(clone: Path) -> None:
    stamp = clone / ".venv" / "complete"
    with environment.one_at_a_time(stamp.parent):
        command = ["make", "dev", f"PYTHON={sys.executable}"]
        second = subprocess.Popen(command, cwd=clone, stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert second.stdout.readline() == "set-up | waiting for another command that is installing\n"
        stamp.parent.mkdir()
        stamp.write_text(ask(clone, "environment.fingerprint(environment.ENVIRONMENT, environment.EVERYTHING)"))
    rest, _ = second.communicate(timeout=30)
    assert (second.returncode, rest) == (0, "")


def test_an_environment_is_complete_only_for_its_place_and_its_versions(clone: Path) -> None:
    def fingerprint(place: Path) -> str:
        return ask(place, "environment.fingerprint(environment.ENVIRONMENT, environment.SERVICE)")

    first = fingerprint(clone)
    assert fingerprint(clone) == first
    with (clone / "constraints.txt").open("a") as constraints:
        constraints.write("one-more==1.0\n")
    second = fingerprint(clone)
    moved = clone.rename(clone.with_name("moved"))
    assert len({first, second, fingerprint(moved)}) == 3


def test_an_environment_that_was_moved_or_is_of_another_python_is_made_anew(tmp_path: Path) -> None:
    place, moved = tmp_path / "env", tmp_path / "moved"
    assert not environment.usable(place)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    assert not environment.usable(place)  # it has no pip
    (place / "bin" / "python").unlink()
    (place / "bin" / "python").symlink_to(shutil.which("true") or "/bin/true")  # as if pip worked
    assert environment.usable(place)
    place.rename(moved)
    assert not environment.usable(moved)
    moved.rename(place)
    configuration = place / "pyvenv.cfg"
    configuration.write_text(configuration.read_text().replace("version = 3.", "version = 2."))
    assert not environment.usable(place)


def test_what_pip_was_writing_when_it_was_killed_is_installed_again(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.0.dist-info", "half-1.0.dist-info"):
        (packages / name).mkdir(parents=True)
        (packages / name / "METADATA").touch()
    (packages / "whole-1.0.dist-info" / "INSTALLER").touch()
    environment.forget_interrupted(tmp_path)
    assert [path.name for path in packages.iterdir()] == ["whole-1.0.dist-info"]
