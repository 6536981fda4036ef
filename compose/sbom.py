"""Lists what each image holds of Python's packages, and their licences: one SBOM for each (CycloneDX 1.6, JSON).

    python compose/sbom.py DIRECTORY        # web.cdx.json and worker.cdx.json, by the packages of this environment

Exit code 1 means that a licence is not in compose/licenses.toml. The images' base, Debian and Python, is one component:
its own list comes from whoever makes that image.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from license_expression import ExpressionError, LicenseSymbol, ParseError, get_spdx_licensing
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
EXTRAS = {"web": ("web",), "worker": ("worker", "s3", "gcs")}  # by image, the extras of setup.cfg that it may have
SPDX = get_spdx_licensing()


@dataclass(frozen=True)
class Rules:
    """The content of licenses.toml."""

    allowed: frozenset[str]
    spelled: Mapping[str, str]
    packages: Mapping[str, str]
    exceptions: Mapping[str, Mapping[str, str]]
    bundled: Mapping[str, list[dict[str, str]]]

    @classmethod
    def read(cls, path: Path = HERE / "licenses.toml") -> Rules:
        found = tomllib.loads(path.read_text())
        bundled = {image: found.get(image, []) for image in EXTRAS}
        return cls(frozenset(found["allowed"]), found["spelled"], found["packages"], found["exceptions"], bundled)

    def license(self, package: Distribution) -> str:
        """A package's licence as an SPDX expression, or what it says of its licence if that is none."""
        name, metadata = canonicalize_name(package.name), package.metadata.json
        classifiers = [each.rpartition(" :: ")[2] for each in metadata.get("classifier", []) if "License ::" in each]
        said = [self.packages.get(name), metadata.get("license_expression"), metadata.get("license"), *classifiers]
        spelled = [self.spelled.get(str(each).strip(), str(each).strip()) for each in said if each]
        return next(filter(is_expression, spelled), " / ".join(each[:60] for each in spelled) or "unknown")

    def allows(self, name: str, found: str) -> bool:
        """Whether an image may hold a package with this licence."""
        exception = self.exceptions.get(canonicalize_name(name))
        if exception is not None and exception["license"] == found:
            return True
        return is_expression(found) and self._allows(SPDX.parse(found))

    def _allows(self, expression: Any) -> bool:
        if isinstance(expression, LicenseSymbol) or not expression.args:
            return str(expression) in self.allowed
        enough = any if isinstance(expression, SPDX.OR) else all
        return enough(self._allows(each) for each in expression.args)


def is_expression(text: str) -> bool:
    """Whether a text is an expression of licences that SPDX knows."""
    try:
        return SPDX.parse(text, validate=True) is not None
    except (ExpressionError, ParseError):
        return False


def packages(extras: tuple[str, ...]) -> Iterator[Distribution]:
    """The distributions that the extras of Tolk bring, with all that these require, in this environment, by name."""
    found: dict[str, Distribution] = {}
    wanted = [("tolk", extra) for extra in ("", *extras)]
    for name, extra in wanted:  # which grows
        found[canonicalize_name(name)] = distribution(name)
        for each in map(Requirement, distribution(name).requires or ()):
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                wanted += {(each.name, more) for more in ("", *each.extras)}.difference(wanted)
    del found["tolk"]
    yield from (package for _, package in sorted(found.items()))


def bill(image: str, rules: Rules) -> Bom:
    """The bill of materials of an image."""
    base = re.findall(r"^ARG PYTHON=(.+)$", (HERE / image / "Dockerfile").read_text(), re.MULTILINE)[0]
    bom = Bom()
    bom.metadata.component = whole = component(
        f"tolk-{image}", distribution("tolk").version, "Apache-2.0", kind="container"
    )
    parts = [component("python", base, kind="container", purl=PackageURL("docker", "library", "python", base))]
    for each in rules.bundled[image]:
        purl = PackageURL.from_string(each["purl"])
        parts.append(component(each["name"], each["version"], each["license"], purl=purl))
    for package in packages(EXTRAS[image]):
        name, version = canonicalize_name(package.name), package.version
        license_ = rules.license(package)
        parts.append(component(name, version, license_, purl=PackageURL("pypi", None, name, version)))
    bom.components.update(parts)
    bom.register_dependency(whole, parts)
    return bom


def component(
    name: str, version: str, license_: str | None = None, *, kind: str = "library", purl: PackageURL | None = None
) -> Component:
    licenses = [LicenseExpression(license_)] if license_ else []
    return Component(
        name=name, version=version, type=ComponentType(kind), licenses=licenses, purl=purl, bom_ref=str(purl or name)
    )


def main(directory: Path) -> int:
    rules, refused = Rules.read(), 0
    directory.mkdir(parents=True, exist_ok=True)
    for image in EXTRAS:
        bom = bill(image, rules)
        path = directory / f"{image}.cdx.json"
        path.write_text(JsonV1Dot6(bom).output_as_string(indent=2))
        print(f"{path}: {len(bom.components)} components")
        for each in sorted(bom.components, key=lambda each: each.name):
            found = next((each.value for each in each.licenses), "-")
            allowed = each.type is ComponentType.CONTAINER or rules.allows(each.name, found)
            refused += not allowed
            print(f"  {each.name} {each.version}: {found}{'' if allowed else '  NOT IN compose/licenses.toml'}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "sbom")))
