"""What a training is: every setting with its default, and the TOML file that changes some of them.

`extends` names another file, beside it, whose settings hold where this one does not say otherwise; a file of pairs that
both name has the settings of both.

A file has the tables of `Config` by their names: [vocabulary], [network], …, and [[sources]] and [[held_out]], one for
each file of sentence pairs. Paths in it are relative to the directory of data that the command line names.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from models.errors import BadInput


@dataclass(frozen=True, slots=True)
class Source:
    """A file of sentence pairs to train on: TSV or TMX, which may be packed with gzip.

    `weight`: how often each of its pairs comes while a pair of weight 1 comes once. The rest is for the model card.
    """

    path: str
    weight: float = 1.0
    name: str = ""
    licence: str = ""
    attribution: str = ""
    url: str = ""

    @property
    def title(self) -> str:
        return self.name or self.path


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A file of sentence pairs that are measured on: no pair that shares a side with them is trained on."""

    path: str
    name: str = ""

    @property
    def title(self) -> str:
        return self.name or Path(self.path).name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Which pairs are left out. Lengths are in characters; `same`: whether those with two equal sides stay."""

    longest: int = 600
    ratio: float = 2.6
    ratio_of: int = 20
    same: bool = False


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One SentencePiece vocabulary for both languages. `sample`: pairs that it is learnt from.

    `holds`, `pairs`: copy symbols, each of which stands for something to be copied, or for an opening and a closing
    mark around some words; `terms`: the marks of a term annotation. They are pieces that are never split. With
    `--from`, `reuse` keeps the model's own vocabulary; otherwise embeddings are carried over piece by piece.
    """

    size: int = 8000
    character_coverage: float = 0.9995
    sample: int = 300_000
    split_digits: bool = True
    holds: int = 16
    pairs: int = 8
    terms: bool = True
    reuse: bool = True


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The share of pairs that is changed in each way, where it can be; docs/training.md shows what each makes."""

    holds: float = 0.2
    pairs: float = 0.05
    terms: float = 0.1
    numbers: float = 0.2
    formats: float = 0.01
    words: float = 0.02
    cut: float = 0.03
    joined: float = 0.05
    lists: float = 0.01
    headings: float = 0.03
    labels: float = 0.01
    capitals: float = 0.01


@dataclass(frozen=True, slots=True)
class Network:
    """The sizes of the network. With `--from` they are the model's; but `grow` adds the layers that it lacks."""

    d_model: int = 256
    heads: int = 4
    encoder_layers: int = 6
    decoder_layers: int = 2
    feed_forward: int = 1024
    activation: str = "swish"
    longest: int = 512
    grow: bool = False


@dataclass(frozen=True, slots=True)
class Training:
    """The loop. A batch has up to `batch_tokens` target (or source) tokens, padding included.

    The rate rises for `warm_up` steps to `learning_rate` and stays there; at `steps` the model lands: the rate falls to
    zero within `landing` steps. Of the first `short_pairs` pairs only those of up to `short_length` tokens come.
    `average` is the decay of the averaged weights, which are what is measured and landed. `guided` is the weight of the
    guided-alignment loss until `guided_steps`. `pool`: pairs from which batches of like lengths are made.
    """

    steps: int = 20_000
    landing: int = 2_000
    batch_tokens: int = 5_000
    longest: int = 160
    learning_rate: float = 1e-3
    warm_up: int = 1_000
    short_pairs: int = 0
    short_length: int = 20
    guided: float = 0.0
    guided_steps: int = 5_000
    dropout: float = 0.1
    label_smoothing: float = 0.1
    optimizer: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    pool: int = 20_000
    seed: int = 1
    threads: int = 0
    workers: int = 0
    device: str = "cpu"
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class Watching:
    """Every how many steps the run says its loss, is kept, and is measured, and on how many sentences of a set."""

    print_every: int = 50
    keep_every: int = 300
    measure_every: int = 300
    sentences: int = 100
    samples: int = 10
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class Landed:
    """What the landed directory says besides: the beam, and the longest sentence in tokens that is translated whole, 0
    for what the model of `--from` says, and 128 for a new vocabulary."""

    beam: int = 4
    longest: int = 0


@dataclass(frozen=True, slots=True)
class Config:
    """A training. `reverse`: TSV files have the source language in their second column. `both_ways`: half of the pairs
    are turned round, so that the model translates either language into the other; models of one direction begin with
    it. `target_token`: what a multilingual model that is fine-tuned is told the target by, if it is not `>>target<<`.
    """

    name: str
    source: str
    target: str
    sources: tuple[Source, ...]
    held_out: tuple[HeldOut, ...] = ()
    reverse: bool = False
    both_ways: bool = False
    target_token: str = ""
    cleaning: Cleaning = field(default_factory=Cleaning)
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    augmentation: Augmentation = field(default_factory=Augmentation)
    network: Network = field(default_factory=Network)
    training: Training = field(default_factory=Training)
    watching: Watching = field(default_factory=Watching)
    landed: Landed = field(default_factory=Landed)


def load(path: Path) -> Config:
    """Raises BadInput, which names the setting, for a file that cannot be read or says what no setting is."""
    try:
        config: Config = read(Config, _read_file(path), "")
        _check(config)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    return config


def _read_file(path: Path, *, may_extend: bool = True) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(str(error)) from error
    base = data.pop("extends", None) if may_extend else None
    if base is None:
        return data
    if not isinstance(base, str):
        raise BadInput(f"extends is {base!r}; the name of a file was expected.")
    settings = _read_file(path.parent / base, may_extend=False)
    for name, value in data.items():
        settings[name] = _merged(settings[name], value) if name in settings else value
    return settings


def _merged(base: Any, value: Any) -> Any:
    """A table with the settings of both, or a list of files with those of both, by path; `value` takes precedence."""
    match base, value:
        case {}, {}:
            return base | value
        case [{"path": _}, *_], [{"path": _}, *_]:
            files = {each.get("path"): each for each in base}
            return list((files | {each.get("path"): files.get(each.get("path"), {}) | each for each in value}).values())
    return value


def read(kind: Any, data: object, place: str) -> Any:
    """A dataclass from a TOML table, all of its types checked; `place` is where the table stands, for errors."""
    if not isinstance(data, dict):
        raise BadInput(f"{place or 'the file'} is no table.")
    kinds = typing.get_type_hints(kind)
    if unknown := sorted(data.keys() - kinds.keys()):
        known = ", ".join(kinds)
        raise BadInput(f"{_named(place, unknown[0])} is no setting. {place or 'The file'} may hold: {known}.")
    for each in dataclasses.fields(kind):
        has_default = each.default is not dataclasses.MISSING or each.default_factory is not dataclasses.MISSING
        if each.name not in data and not has_default:
            raise BadInput(f"{_named(place, each.name)} is missing.")
    return kind(**{name: _value(kinds[name], value, _named(place, name)) for name, value in data.items()})


def _named(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _value(kind: Any, value: object, place: str) -> object:
    if dataclasses.is_dataclass(kind):
        return read(kind, value, place)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise BadInput(f"{place} is no list: write [[{place}]].")
        return tuple(_value(get_args(kind)[0], each, f"{place}[{i}]") for i, each in enumerate(value))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        raise BadInput(f"{place} is {value!r}; {names[kind]} was expected.")
    return value


def _check(config: Config) -> None:
    rates = dataclasses.asdict(config.augmentation).items()
    at_least_one = {
        "training": ("batch_tokens", "longest", "warm_up", "landing", "pool"),
        "network": ("d_model", "heads", "encoder_layers", "decoder_layers", "feed_forward"),
        "watching": ("print_every", "keep_every", "measure_every"),
    }
    for table, names in at_least_one.items():
        for name in names:
            if getattr(getattr(config, table), name) < 1:
                raise BadInput(f"{table}.{name} is at least 1.")
    if not config.sources:
        raise BadInput("sources is empty: write [[sources]] with a path.")
    for name, rate in [*rates, ("training.dropout", config.training.dropout)]:
        if not 0 <= rate <= 1:
            raise BadInput(f"{name} is {rate}; a share from 0 to 1 was expected.")
    if not 0 <= config.training.average < 1:
        raise BadInput(f"training.average is {config.training.average}; 0 to less than 1 was expected.")
    if not all(source.weight > 0 for source in config.sources):
        raise BadInput("sources.weight is more than 0: leave a source out instead.")
    if len({each.title for each in config.held_out}) < len(config.held_out):
        raise BadInput("held_out: two sets have the same name.")
    if config.training.optimizer not in ("adamw", "muon"):
        raise BadInput(f"training.optimizer is {config.training.optimizer!r}, none of adamw, muon.")
    if config.training.precision not in ("auto", "bfloat16", "float32"):
        raise BadInput(f"training.precision is {config.training.precision!r}, none of auto, bfloat16, float32.")
