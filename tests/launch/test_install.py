"""What `make` says, in one sentence, on a machine that lacks something; and when it sets up again, or does not."""

from __future__ import annotations

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from launch import install
from launch.debian import PackageError

ROOT = Path(__file__).parents[2]
NEEDED = ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE", "launch")
NO_NETWORK = {
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_NO_CACHE_DIR": "1",
}


def copy(directory: Path) -> Path:
    """As much of a clone as the set-up reads."""
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, directory)
    return directory


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return copy(tmp_path)


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


def make(clone: Path, *arguments: str, before: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs make with an environment that holds next to nothing, and a python3 that runs `before` before the module."""
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
    """The one line that says why nothing was done."""
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith(("make: ", "set-up | "))]
    assert len(said) == 1, said
    return said[0]


def ask(clone: Path, expression: str) -> str:
    """What the set-up of a clone says of itself."""
    command = [sys.executable, "-c", f"from launch import install; print({expression}, end='')"]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True).stdout


def modules_of_the_service() -> Iterator[Path]:
    """The files that `make run` runs."""
    yield from (ROOT / "celeryconfig.py", ROOT / "gunicorn.conf.py")
    for package in ("app", "tasks", "models", "telemetry", "text", "launch"):
        yield from (ROOT / package).rglob("*.py")


def imported_by(path: Path) -> Iterator[str]:
    """The packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def normal(name: str) -> str:
    """The name of a distribution as all spellings of it have in common."""
    return re.sub("[-_.]+", "-", name).lower()


def brought_by(name: str, *extras: str) -> set[str]:
    """The distributions that come with one and its extras, itself included."""
    found: set[str] = set()
    wanted = [(name, extra) for extra in ("", *extras)]
    asked = set(wanted)
    while wanted:
        name, extra = wanted.pop()
        found.add(normal(name))
        for requirement in map(Requirement, requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                more = {(requirement.name, each) for each in ("", *requirement.extras)} - asked
                asked |= more
                wanted += more
    return found


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 15)])
def test_a_python_too_old_or_too_new_is_named(clone: Path, version: tuple[int, int]) -> None:
    said = sentence(make(clone, "run", before=f"sys.version_info = {version}"))
    assert said.startswith("Tolk needs Python 3.11 to 3.14, and this is {}.{}:".format(*version))
    assert not (clone / ".venv").exists()


def test_an_old_python_can_read_far_enough_to_say_so() -> None:
    for module in ("__init__.py", "install.py"):
        ast.parse((ROOT / "launch" / module).read_text(), feature_version=(3, 7))


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
    assert said == f"There is no {package}, and only root can install it (on Debian)."


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
    done = subprocess.run(run, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"The disk of {small_disk} is full: make room" in done.stdout


@pytest.mark.parametrize("program", [install.BROWSER, install.PROMETHEUS])
def test_a_program_that_cannot_be_installed_is_named(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # which has no apt-get either
    needed = {install.BROWSER: install.install_chromium, install.PROMETHEUS: install.install_prometheus}[program]
    with pytest.raises(PackageError, match=f"There is no {program}, and only root can install it"):
        needed()
    (tmp_path / program).touch(mode=0o755)
    needed()


def test_no_network_is_named_and_the_environment_not_taken_for_complete(clone: Path) -> None:
    done = make(clone, "environment", **NO_NETWORK)
    assert sentence(done).startswith("The package index cannot be reached:")
    assert (clone / ".venv" / "bin" / "python").exists()
    assert not (clone / ".venv" / "complete").exists()


def test_what_nobody_foresaw_is_shown_whole() -> None:
    said = str(install.failure(["pip", "install", "x"], ["Collecting x", "ERROR: x wants a moon"]))
    assert said.splitlines() == ["Collecting x", "ERROR: x wants a moon", "`pip install x` failed: see above."]


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (install.SERVICE, install.SERVICE),
        (install.EVERYTHING, install.EVERYTHING),
        (install.EVERYTHING, install.SERVICE),
    ],
)
def test_an_environment_that_holds_what_is_wanted_is_left_alone(
    held: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "complete").write_text(install.fingerprint(tmp_path, held))
    install.install(tmp_path, wanted)
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["complete"]


def test_what_runs_the_service_is_not_taken_for_what_tests_need(clone: Path) -> None:
    stamp = clone / ".venv" / "complete"
    stamp.parent.mkdir()
    stamp.write_text(ask(clone, "install.fingerprint(install.ENVIRONMENT, install.SERVICE)"))
    done = make(clone, "environment")
    assert (done.returncode, done.stdout) == (0, "")
    done = make(clone, "dev", **NO_NETWORK)
    assert "set-up | installing the dependencies" in done.stdout
    assert sentence(done).startswith("The package index cannot be reached:")
    assert not stamp.exists()  # interrupted: `make run` looks again, too


def test_the_second_of_two_commands_waits_for_the_first(clone: Path) -> None:
    stamp = clone / ".venv" / "complete"
    with install.one_at_a_time(stamp.parent):
        command = ["make", "dev", f"PYTHON={sys.executable}"]
        second = subprocess.Popen(command, cwd=clone, stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert second.stdout.readline() == "set-up | waiting for another command that is installing\n"
        stamp.parent.mkdir()
        stamp.write_text(ask(clone, "install.fingerprint(install.ENVIRONMENT, install.EVERYTHING)"))
    rest, _ = second.communicate(timeout=30)
    assert (second.returncode, rest) == (0, "")


def test_what_runs_the_service_imports_nothing_that_only_tests_need() -> None:
    installed = brought_by("tolk", "web", "worker")
    distributions = packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in modules_of_the_service()
        for module in imported_by(path)
        if module in distributions and not {normal(name) for name in distributions[module]} & installed
    }
    assert not missing


def test_an_environment_is_complete_only_for_its_place_and_its_versions(clone: Path) -> None:
    def fingerprint(place: Path) -> str:
        return ask(place, "install.fingerprint(install.ENVIRONMENT, install.SERVICE)")

    first = fingerprint(clone)
    assert fingerprint(clone) == first
    with (clone / "constraints.txt").open("a") as constraints:
        constraints.write("one-more==1.0\n")
    second = fingerprint(clone)
    moved = clone.rename(clone.with_name("moved"))
    assert len({first, second, fingerprint(moved)}) == 3


def test_an_environment_that_was_moved_or_is_of_another_python_is_made_anew(tmp_path: Path) -> None:
    environment, moved = tmp_path / "env", tmp_path / "moved"
    assert not install.usable(environment)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    assert not install.usable(environment)  # it never got its pip
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to(shutil.which("true") or "/bin/true")  # as if pip answered
    assert install.usable(environment)
    environment.rename(moved)
    assert not install.usable(moved)
    moved.rename(environment)
    configuration = environment / "pyvenv.cfg"
    configuration.write_text(configuration.read_text().replace("version = 3.", "version = 2."))
    assert not install.usable(environment)


def test_what_pip_was_writing_when_it_was_killed_is_installed_again(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.0.dist-info", "half-1.0.dist-info"):
        (packages / name).mkdir(parents=True)
        (packages / name / "METADATA").touch()
    (packages / "whole-1.0.dist-info" / "INSTALLER").touch()
    install.forget_interrupted(tmp_path)
    assert [path.name for path in packages.iterdir()] == ["whole-1.0.dist-info"]
