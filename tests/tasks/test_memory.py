"""How much memory there is for models."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from tasks import memory


def test_half_of_what_is_available_is_for_models_and_divided_in_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "on_gpu", lambda: None)
    monkeypatch.setattr(memory, "available", lambda: 8_000_000_000)
    assert memory.for_models(1) == 4_000_000_000
    assert memory.for_models(4) == 1_000_000_000


def test_what_is_available_is_what_the_machine_has_and_the_control_group_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP", str(limit))
    here = memory.available()
    assert 0 < here <= os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
    limit.write_text("max\n")
    assert memory.available() > 4096
    limit.write_text("4096\n")
    assert memory.available() == 4096
