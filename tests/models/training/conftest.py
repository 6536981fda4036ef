"""A small language and a training of it that takes seconds."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch

from models.training.config import Config, load
from models.training.data import Pair
from models.training.train import train

NOUNS = {
    "chat": "cat",
    "chien": "dog",
    "cheval": "horse",
    "livre": "book",
    "jardin": "garden",
    "bateau": "ship",
    "roi": "king",
    "marchand": "merchant",
    "voisin": "neighbour",
    "train": "train",
    "fermier": "farmer",
    "pain": "bread",
}
VERBS = {"voit": "sees", "cherche": "seeks", "aime": "loves", "trouve": "finds", "garde": "keeps", "vend": "sells"}
NAMES = ("Tom", "Marie", "Boston", "Paul")

SETTINGS = """
name = "tiny"
source = "fr"
target = "en"

[[sources]]
path = "train.tsv.gz"
name = "made up"
licence = "CC0"
attribution = "nobody"

[[held_out]]
path = "dev.tsv"

[vocabulary]
size = 200
holds = 4
pairs = 2

[network]
d_model = 32
heads = 2
encoder_layers = 1
decoder_layers = 1
feed_forward = 64
longest = 64

[training]
steps = 30
landing = 10
batch_tokens = 400
longest = 64
learning_rate = 5e-3
warm_up = 10
guided = 0.1
guided_steps = 15
average = 0.9
pool = 300
threads = 1

[watching]
print_every = 5
keep_every = 10
measure_every = 20
sentences = 20
precision = "float32"

[landed]
longest = 32
beam = 2
"""

Configure = Callable[..., Config]


def made_up(count: int, seed: int) -> list[Pair]:
    """Sentences of the language, each once."""
    random = Random(seed)
    found: dict[Pair, None] = {}
    while len(found) < count:
        (one, other), (verb, said) = random.sample(sorted(NOUNS.items()), 2), random.choice(sorted(VERBS.items()))
        name, number = random.choice(NAMES), random.randint(2, 9999)
        form = random.choice(("{0} {v} le {1}.", "le {0} {v} {n} {1}s.", "{name} {v} le {0} et le {1}."))
        sides = []
        for side, (a, b, v) in enumerate(((one[0], other[0], verb), (one[1], other[1], said))):
            text = form.format(a, b, v=v, n=number, name=name)
            text = text.replace("le ", "the ").replace(" et ", " and ") if side else text
            sides.append(text[0].upper() + text[1:])
        found[Pair(*sides)] = None
    return list(found)


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    return made_up(600, 1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair]) -> Path:
    """A directory with train.tsv.gz and dev.tsv, whose sentences are in train.tsv.gz, too."""
    directory = tmp_path_factory.mktemp("corpus")
    with gzip.open(directory / "train.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{source}\t{target}\n" for source, target in pairs)
    dev = "".join(f"{source.upper()}\t{target}\n" for source, target in pairs[:30])
    (directory / "dev.tsv").write_text(dev, encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def configure(tmp_path_factory: pytest.TempPathFactory) -> Configure:
    """The settings above, lines of which are replaced: configure("steps = 40", "steps = 20")."""

    def make(*changes: str) -> Config:
        text = SETTINGS
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        path = tmp_path_factory.mktemp("settings") / "config.toml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path, configure: Configure) -> Path:
    """The directory of a run that has landed, in `model`."""
    run = tmp_path_factory.mktemp("run")
    threads = torch.get_num_threads()
    train(configure(), corpus, run, run / "model")
    torch.set_num_threads(threads)
    return run
