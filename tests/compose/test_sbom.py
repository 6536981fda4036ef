"""What the images hold: every licence is one of compose/licenses.toml."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom

from compose.sbom import EXTRAS, Rules, packages
from tests.conftest import REPOSITORY


class Package(Distribution):
    """A package called `new` with these metadata."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = {"Name": "new", **fields}

    def read_text(self, filename: str) -> str | None:
        text = "".join(f"{name}: {value}\n" for name, value in self.fields.items())
        return text if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Path:
        raise NotImplementedError


@pytest.fixture(scope="module")
def rules() -> Rules:
    return Rules.read()


@pytest.mark.parametrize("image", EXTRAS)
def test_every_package_of_an_image_has_a_licence_that_is_allowed(rules: Rules, image: str) -> None:
    found = {package.name: rules.license(package) for package in packages(EXTRAS[image])}
    assert len(found) > 40
    assert {name: text for name, text in found.items() if not rules.allows(name, text)} == {}


def test_no_exception_is_left_over(rules: Rules) -> None:
    held = {package.name: rules.license(package) for image in EXTRAS for package in packages(EXTRAS[image])}
    assert {name: rule["license"] for name, rule in rules.exceptions.items()} == {
        name: held.get(name) for name in rules.exceptions
    }
    assert all(rule["reason"] for rule in rules.exceptions.values())


@pytest.mark.parametrize(
    ("license_", "allowed"),
    [
        ("MIT", True),
        ("MIT AND BSD-3-Clause", True),
        ("GPL-2.0-only OR MIT", True),
        ("GPL-2.0-only AND MIT", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("AGPL-3.0-or-later", False),
        ("LGPL-3.0-only", False),
        ("MPL-2.0", False),
        ("Proprietary, see the EULA", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_what_is_allowed_by_itself(rules: Rules, license_: str, allowed: bool) -> None:
    assert rules.allows("new", license_) is allowed


def test_an_exception_is_for_one_package_and_one_licence(rules: Rules) -> None:
    assert rules.allows("certifi", "MPL-2.0")
    assert not rules.allows("certifi", "GPL-3.0-only")


@pytest.mark.parametrize(
    ("fields", "license_"),
    [
        ({"License-Expression": "MIT OR GPL-2.0-only"}, "MIT OR GPL-2.0-only"),
        ({"License": "BSD"}, "BSD-3-Clause"),
        ({"License": "see LICENSE", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({"License": "NVIDIA Proprietary Software"}, "NVIDIA Proprietary Software"),
        ({}, "unknown"),
    ],
)
def test_what_a_package_says_of_its_licence(rules: Rules, fields: dict[str, str], license_: str) -> None:
    assert rules.license(Package(fields)) == license_


def test_the_command_writes_bills_that_can_be_read(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "compose/sbom.py", str(tmp_path)], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    for image, named in (("web", "psycopg"), ("worker", "torch")):
        text = (tmp_path / f"{image}.cdx.json").read_text()
        parsed: Any = Bom
        assert parsed.from_json(json.loads(text)).metadata.component.name == f"tolk-{image}"
        components = {each["name"]: each for each in json.loads(text)["components"]}
        assert named in components
        assert components["certifi"]["licenses"] == [{"expression": "MPL-2.0"}]
        assert "tolk" not in components
