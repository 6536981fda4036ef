from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.clone import copy


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return copy(tmp_path)
