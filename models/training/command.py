"""The commands that make models and measure them: train, distill, evaluate."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.errors import BadInput
from models.local import LocalTranslator
from models.store.store import Store
from models.training.config import load
from models.training.data import Pair
from models.training.distill import distill
from models.training.evaluate import Comparison, Figures, compare, evaluate, in_json, read_set, signatures, table
from models.training.train import train, with_steps


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """`commands` is what add_subparsers returned; `parents` say where models are kept."""
    parser = commands.add_parser("train", parents=parents, help="train a model, or go on with it")
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="what to train, and on what")
    parser.add_argument("--data", type=Path, default=Path(), metavar="DIRECTORY", help="where its paths begin")
    parser.add_argument("--output", type=Path, metavar="DIRECTORY", help="where the model lands (default: in its run)")
    parser.add_argument("--from", dest="start", metavar="REFERENCE", help="begin with the weights of this model")
    parser.add_argument("--steps", type=int, help="land after so many steps (CONFIG.toml's); 0 lands now")
    parser.add_argument("--runs", type=Path, metavar="DIRECTORY", help="where runs are kept (the user's cache)")
    parser = commands.add_parser("distill", parents=parents, help="make a student's corpus with a teacher")
    parser.add_argument("model", metavar="MODEL", help="the teacher")
    parser.add_argument("pairs", nargs="+", type=Path, metavar="PAIRS", help="TSV or TMX, of which sources are taken")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.tsv.gz", help="goes on where it ended")
    _add_decoding(parser)
    parser = commands.add_parser("evaluate", parents=parents, help="BLEU, chrF, numbers, holds, runaways, speed")
    parser.add_argument("model", metavar="MODEL", help="an embedded model's name, a directory, …")
    parser.add_argument("pairs", nargs="+", type=Path, metavar="PAIRS", help="TSV or TMX; each file is a set")
    parser.add_argument("--against", metavar="MODEL", help="a second model, compared by paired bootstrap")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap; 0 for no intervals")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    _add_decoding(parser)


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reverse", action="store_true", help="the source is the second column of TSV files")
    parser.add_argument("--target", help="the target language's code, for a multilingual model")
    parser.add_argument("--beam", type=int, help="beam width (default: the model's)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: cpu)")
    parser.add_argument("--precision", default="auto", help="float32, bfloat16, float16, int8 (default: the fastest)")


def run_train(options: argparse.Namespace, store: Store) -> int:
    config = with_steps(load(options.config), options.steps)
    run = (options.runs or _user_cache()) / config.name
    output = options.output or run / "model"
    with ExitStack() as stack:
        start = stack.enter_context(store.fetch(options.start)).directory if options.start else None
        train(config, options.data, run, output, start)
    print(f"model:   {output}\nreport:  {output / 'report.html'}")
    return 0


def run_distill(options: argparse.Namespace, store: Store) -> int:
    with _load(options.model, options, store) as translator:
        pairs = (pair for path in options.pairs for pair in _read(path, translator, options))
        sources = dict.fromkeys(pair.source for pair in pairs)
        lines = distill(
            translator, sources, options.output, beam=options.beam or translator.decoding.beam, target=options.target
        )
    print(f"{options.output}: {lines:,} lines")
    return 0


def run_evaluate(options: argparse.Namespace, store: Store) -> int:
    names = [options.model, *filter(None, [options.against])]
    sets: dict[str, list[Pair]] = {}
    figures: dict[str, list[Figures]] = {}
    texts: dict[str, list[list[str]]] = {}
    for name in names:
        with _load(name, options, store) as translator:
            translator.warm_up()
            sets = {path.name.partition(".")[0]: _read(path, translator, options) for path in options.pairs}
            if len(sets) < len(options.pairs):
                raise BadInput("Two files have the same name: each is a set of its own.")
            done = [
                evaluate(translator, each, pairs, beam=options.beam, resamples=options.resamples, target=options.target)
                for each, pairs in sets.items()
            ]
        figures[name], texts[name] = [each for each, _ in done], [each for _, each in done]
    compared: dict[str, list[Comparison]] = {}
    if options.against:
        for i, (name, pairs) in enumerate(sets.items()):
            references = [pair.target for pair in pairs]
            compared[name] = compare(references, texts[names[0]][i], texts[names[1]][i], max(1, options.resamples))
    if options.json:
        said = {
            "models": {name: [in_json(each) for each in figures[name]] for name in names},
            "comparisons": {name: [asdict(each) for each in some] for name, some in compared.items()},
            "signatures": signatures(options.resamples),
        }
        print(json.dumps(said, ensure_ascii=False))
        return 0
    for name in names:
        print(f"{name}\n{table(figures[name])}\n")
    for name, some in compared.items():
        for each in some:
            print(f"{name}  {each.metric}  {each.first:.2f}  {each.second:.2f}  p = {each.p:.3f}")
    print("\n".join(signatures(options.resamples)))
    return 0


def _read(path: Path, translator: LocalTranslator, options: argparse.Namespace) -> list[Pair]:
    return read_set(path, translator.source, options.target or translator.target, reverse=options.reverse)


def _load(reference: str, options: argparse.Namespace, store: Store) -> LocalTranslator:
    return LocalTranslator.load(reference, device=options.device, precision=options.precision, store=store)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tolk" / "training"
