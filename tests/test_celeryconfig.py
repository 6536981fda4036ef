"""The imports of celeryconfig.py, which import-linter does not check because it is not in a package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

CONFIGURATION = Path(__file__).parent.parent / "celeryconfig.py"
KNOWN = ("tasks.environment", "tasks.queues", "tasks.registry", "tasks.contract", "telemetry")


def test_the_configuration_knows_neither_the_web_tier_nor_the_models() -> None:
    for node in ast.walk(ast.parse(CONFIGURATION.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                imported = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module)):
                imported = [f"{module}.{alias.name}" for alias in node.names]
            case _:
                continue
        for name in imported:
            package = name.partition(".")[0]
            assert package in sys.stdlib_module_names or f"{name}.".startswith(tuple(f"{each}." for each in KNOWN))


def test_the_configuration_holds_settings_alone() -> None:
    body = ast.parse(CONFIGURATION.read_text(encoding="utf-8")).body
    assert not [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
