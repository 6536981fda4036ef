"""The settings of a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import BadInput
from models.training.config import Config, Source, Training, load
from tests.models.training.conftest import SETTINGS

CONFIGURATIONS = sorted((Path(__file__).parents[3] / "models" / "training" / "configurations").glob("*.toml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    config = load(
        written(tmp_path, 'name = "x"\nsource = "fr"\ntarget = "en"\nsources = [{path = "a.tsv", weight = 2}]')
    )
    assert (config.training, config.held_out, config.sources[0].weight) == (Training(), (), 2.0)


def test_a_file_extends_another_table_by_table(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(SETTINGS, encoding="utf-8")
    config = load(written(tmp_path, 'extends = "base.toml"\nname = "more"\n[training]\nsteps = 31'))
    base = load(tmp_path / "base.toml")
    assert config == replace(base, name="more", training=replace(base.training, steps=31))
    files = '[[sources]]\npath = "train.tsv.gz"\nweight = 3\n[[sources]]\npath = "more.tsv"'
    sources = load(written(tmp_path, f'extends = "base.toml"\n{files}')).sources
    assert sources == (replace(base.sources[0], weight=3.0), Source("more.tsv"))
    with pytest.raises(BadInput, match=r"config\.toml: .*gone\.toml"):
        load(written(tmp_path, 'extends = "gone.toml"'))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 30", "step = 30", r"training\.step is no setting\. training may hold: steps, landing, "),
        ('name = "tiny"', 'title = "tiny"', r"title is no setting\. The file may hold: name, source, "),
        ('licence = "CC0"', 'license = "CC0"', r"sources\[0\]\.license is no setting"),
        ("steps = 30", "steps = 30.5", r"training\.steps is 30\.5; a whole number was expected"),
        ("steps = 30", "steps = true", r"training\.steps is True; a whole number"),
        ("[landed]", "[landed", "config.toml: "),
        ('path = "dev.tsv"', "", r"held_out\[0\]\.path is missing"),
        ("[[held_out]]", "[held_out]", r"held_out is no list: write \[\[held_out\]\]"),
        ("average = 0.9", "average = 1.0", "training.average is 1.0"),
        ("pool = 300", "pool = 0", "training.pool is at least 1"),
        ("pool = 300", 'precision = "float16"', "none of auto, bfloat16, float32"),
        ('licence = "CC0"', "weight = 0", "weight is more than 0"),
        ("[network]", "[augmentation]\nholds = 1.5\n[network]", "holds is 1.5; a share from 0 to 1"),
    ],
)
def test_what_is_no_setting_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SETTINGS
    with pytest.raises(BadInput, match=message):
        load(written(tmp_path, SETTINGS.replace(old, new, 1)))


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_the_configurations_that_we_bring(path: Path) -> None:
    config: Config = load(path)
    assert config.name == path.stem
    assert all(source.licence and source.attribution for source in config.sources)
    assert {each.title for each in config.held_out} >= {"everyday", "news", "encyclopaedic", "legal"}
    assert not any(Path(each.path).is_absolute() for each in (*config.sources, *config.held_out))
