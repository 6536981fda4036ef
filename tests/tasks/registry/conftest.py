"""A models.toml with an entry of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.registry.file import load_registry
from tasks.registry.ways import Registry

MODELS = """
[models.fr-en]
reference = "fr-en"
pairs = [{ source = "fr", target = "en" }]
decoding = { beam = 4 }
precision = "float32"
checksum = "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"
example = "Bonjour."

[models.en-roa]
reference = "./roa"
pairs = [{ source = "en", target = "fr", token = ">>fra<<" }, { source = "en", target = "es", token = ">>spa<<" }]

[models.de-en]
reference = "/srv/de-en"
pairs = [{ source = "de", target = "en" }]

[models.customer-1]
reference = "hf:Helsinki-NLP/opus-mt-it-en@2024-01"
pairs = [{ source = "it", target = "en" }]
warm = false

[models.customer-2]
reference = "s3://models/sv-en.tar.gz"
pairs = [{ source = "sv", target = "en" }]
warm = false
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


@pytest.fixture
def registry(path: Path) -> Registry:
    path.write_text(MODELS)
    return load_registry(path)
