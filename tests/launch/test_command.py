"""The message for a command that fails."""

from __future__ import annotations

from launch import command


def test_what_nobody_foresaw_is_shown_whole() -> None:
    said = str(command.failure(["pip", "install", "x"], ["Collecting x", "ERROR: x wants a moon"]))
    assert said.splitlines() == ["Collecting x", "ERROR: x wants a moon", "`pip install x` failed: see above."]
