"""The code that runs the service imports no package that is installed only for tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement

from tests.conftest import REPOSITORY


def test_what_runs_the_service_imports_nothing_that_only_tests_need() -> None:
    installed = brought_by("tolk", "web", "worker", "train")  # training is installed by who trains
    distributions = packages_distributions()
    missing = {
        f"{path.relative_to(REPOSITORY)}: {module}"
        for path in modules_of_the_service()
        for module in imported_by(path)
        if module in distributions and not {normal(name) for name in distributions[module]} & installed
    }
    assert not missing


def modules_of_the_service() -> Iterator[Path]:
    """The files that `make run` runs."""
    yield from (REPOSITORY / "celeryconfig.py", REPOSITORY / "gunicorn.conf.py")
    for package in ("app", "tasks", "models", "telemetry", "text", "launch"):
        yield from (REPOSITORY / package).rglob("*.py")


def imported_by(path: Path) -> Iterator[str]:
    """The packages that a file imports, at any place in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def normal(name: str) -> str:
    """The normalised name of a distribution."""
    return re.sub("[-_.]+", "-", name).lower()


def brought_by(name: str, *extras: str) -> set[str]:
    """A distribution and all distributions that it and its extras require."""
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
