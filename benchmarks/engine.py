"""Compares the engine with CTranslate2 and transformers: same weights, sentences, beams and limits, on all cores.

python -m benchmarks.engine [DATA.tsv[.gz]] [--rounds N] [--quick]

A line of DATA is a sentence, a tab and its translation. Without DATA, the benchmark translates the sentences of the
tests and reports no scores. Each engine runs in a process of its own. Every round measures every engine once, one after
the other; the reported numbers are medians. There are two models: the embedded one, and one of OPUS-MT's size with
seeded weights that never ends a sentence, so that every translation has the full number of tokens. Sentences that
arrive one by one arrive as a Poisson process.
"""

from __future__ import annotations

import argparse
import logging
import platform
import random
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ctranslate2
import sacrebleu
import torch
import transformers
from ctranslate2.converters import TransformersConverter

from benchmarks.opus import OPUS, opus_model
from benchmarks.quality import MODEL, TESTS, read
from benchmarks.sides import CTranslate2, Ours, Process, Sentences, Transformers, cores

PRECISIONS = ("float32", "bfloat16", "int8")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
LIMIT = 200  # target tokens; most translations of the embedded model end before
LOAD, ARRIVALS, ROUNDS_OF_ARRIVALS = 0.8, 2_000, 5  # share of the capacity with static batches; sentences; rounds


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares the engine with CTranslate2 and transformers.")
    parser.add_argument("data", nargs="?", type=Path, default=TESTS, metavar="DATA.tsv[.gz]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a short run of every part, to check that it works")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    pairs = [line.partition("\t") for line in read(options.data)][: 100 if options.quick else None]
    texts, references = [text for text, _, _ in pairs], [reference for *_, reference in pairs]
    rounds = 1 if options.quick else options.rounds
    targets: list[tuple[str, str, float, bool]] = []
    machine()
    with tempfile.TemporaryDirectory() as scratch:
        default, opus = Path(scratch, "default"), Path(scratch, "opus")
        shutil.copytree(MODEL, default)
        ids = opus_model(opus)[: 16 if options.quick else None]
        for directory in (default, opus):
            TransformersConverter(str(directory)).convert(str(directory / "ctranslate2"))
        if any(references):
            quality(default, texts, references, targets)
        throughput("the embedded model", default, sample(texts, 600), LIMIT, rounds, targets)
        throughput("a model as large as OPUS-MT's", opus, ids, OPUS["tokens"], rounds, targets)
        alone("the embedded model", default, sample(texts, 100), LIMIT, targets)
        alone("a model as large as OPUS-MT's", opus, sample(ids, 20), OPUS["tokens"], targets)
        arrivals(default, texts, targets)
        memory(opus, ids[:64], targets)
    title("Targets")
    table(
        ["", "target", "measured", ""],
        [[name, bound, f"{value:.2f}", "met" if met else "missed"] for name, bound, value, met in targets],
    )


def machine() -> None:
    cpu = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    cpu = {name.strip(): value.strip() for name, value in cpu.items()}
    flags = [flag for flag in FLAGS if flag in cpu.get("flags", "").split()]
    print(f"{cpu.get('model name', platform.processor())}, {cores()} cores, {' '.join(flags)}")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, CTranslate2 {ctranslate2.__version__}, "
        f"transformers {transformers.__version__}",
        flush=True,
    )


def quality(
    directory: Path, texts: Sequence[str], references: Sequence[str], targets: list[tuple[str, str, float, bool]]
) -> None:
    title(f"BLEU, and outputs identical to transformers' in float32, of {len(texts)} sentences")
    rows, scores = [], {}
    expected: dict[int, list[str]] = {}
    for name, make in sides(directory):
        with process(name, make) as side:
            row = [name]
            for beam in (1, 4):
                _, found = side.ask("translate", texts, beam, LIMIT)
                scores[name, beam] = sacrebleu.corpus_bleu(found, [references]).score
                same = sum(a == b for a, b in zip(found, expected.setdefault(beam, found), strict=True))
                row += [f"{scores[name, beam]:.2f}", f"{same / len(found):.1%}"]
            rows.append(row)
    table(["", "greedy", "identical", "beam 4", "identical"], rows)
    for precision, most in zip(PRECISIONS, (0.1, 0.1, 0.3), strict=True):
        loss = max(scores["transformers float32", beam] - scores[f"Tolk {precision}", beam] for beam in (1, 4))
        targets.append((f"BLEU that {precision} loses against float32 transformers", f"≤ {most}", loss, loss <= most))


def throughput(
    model: str,
    directory: Path,
    sentences: Sentences,
    limit: int,
    rounds: int,
    targets: list[tuple[str, str, float, bool]],
) -> None:
    title(f"Sentences/s, {model}, {len(sentences)} sentences, medians of {rounds} rounds")
    running = [(name, Process(name, *make)) for name, make in sides(directory)]
    found: dict[tuple[str, int], list[float]] = {}
    ways = {}
    for name, side in running:
        for beam in (1, 4):
            ways[name, beam] = side.ask("tune", sample(sentences, 64), beam, limit)[1]
    for beam in (1, 4):
        for _ in range(rounds):
            for name, side in running:
                # Slow engines get fewer sentences; the rate is comparable all the same.
                some = sentences if "int8" in name else sample(sentences, len(sentences) // 4)
                seconds, _ = side.ask("translate", some, beam, limit)
                found.setdefault((name, beam), []).append(len(some) / seconds)
    for _, side in running:
        side.close()
    median = {key: statistics.median(rates) for key, rates in found.items()}
    table(
        ["", "greedy", "batch", "beam 4", "batch"],
        [
            [name, *(x for beam in (1, 4) for x in (f"{median[name, beam]:.0f}", ways[name, beam]))]
            for name, _ in running
        ],
    )
    for beam in (1, 4):
        best = max(median[f"Tolk {precision}", beam] for precision in PRECISIONS)
        search = "greedy" if beam == 1 else "beam 4"
        theirs = max(rate for (name, width), rate in median.items() if width == beam and "transformers" in name)
        for name, rate, least in (
            ("CTranslate2 int8", median["CTranslate2 int8", beam], 1.0),
            ("CTranslate2 float32", median["CTranslate2 float32", beam], 2.0),
            ("transformers", theirs, 6.0),
        ):
            targets.append(
                (f"throughput against {name}, {search}, {model}", f"≥ {least}", best / rate, best / rate >= least)
            )


def alone(
    model: str, directory: Path, sentences: Sentences, limit: int, targets: list[tuple[str, str, float, bool]]
) -> None:
    title(f"One sentence alone, median of {len(sentences)} sentences in ms, {model}")
    running = [
        ("Tolk int8", Process("ours", Ours, directory, "int8")),
        ("CTranslate2 int8, one thread", Process("theirs", CTranslate2, directory, "int8", 1)),
    ]
    rows: dict[str, list[str]] = {name: [name] for name, _ in running}
    for beam in (1, 4):
        found: dict[str, list[float]] = {name: [] for name, _ in running}
        for _, side in running:
            side.ask("translate", sentences[:3], beam, limit)
        for sentence in sentences:
            for name, side in running:
                found[name].append(side.ask("translate", [sentence], beam, limit)[0])
        medians = [statistics.median(seconds) for seconds in found.values()]
        for row, seconds in zip(rows.values(), medians, strict=True):
            row.append(f"{seconds * 1e3:.2f}")
        ratio = medians[0] / medians[1]
        search = "greedy" if beam == 1 else "beam 4"
        targets.append((f"one sentence alone against CTranslate2 int8, {search}, {model}", "≤ 1.0", ratio, ratio <= 1))
    for _, side in running:
        side.close()
    table(["", "greedy", "beam 4"], list(rows.values()))


def arrivals(directory: Path, texts: Sequence[str], targets: list[tuple[str, str, float, bool]]) -> None:
    chance = random.Random(0)
    sentences = [chance.choice(texts) for _ in range(min(ARRIVALS, 10 * len(texts)))]
    sides: dict[str, tuple[Any, ...]] = {
        "static batches": (Ours, directory, "int8", True),
        "continuous": (Ours, directory, "int8"),
    }
    running = {name: Process(name, *make) for name, make in sides.items()}
    for beam in (1, 4):
        capacity = []
        for _ in range(ROUNDS_OF_ARRIVALS):
            seconds, _ = running["static batches"].ask("translate", sentences, beam, LIMIT)
            capacity.append(len(sentences) / seconds)
        rate = LOAD * statistics.median(capacity)
        times, now = [], 0.0
        for _ in sentences:
            now += chance.expovariate(rate)
            times.append(now)
        title(
            f"Arriving one by one, {rate:.0f}/s, beam {beam}: ms until the answer, {len(sentences)} arrivals, "
            f"medians of {ROUNDS_OF_ARRIVALS} rounds"
        )
        found: dict[str, list[list[float]]] = {name: [] for name in running}
        for _ in range(ROUNDS_OF_ARRIVALS):
            for name, side in running.items():
                side.ask("translate", sentences[:64], beam, LIMIT)
                found[name].append(sorted(side.ask("arrivals", sentences, beam, LIMIT, times)[1]))
        p50, p99 = (
            {
                name: statistics.median(waits[int(part * len(waits))] for waits in rounds)
                for name, rounds in found.items()
            }
            for part in (0.5, 0.99)
        )
        rows = [[name, f"{p50[name] * 1e3:.1f}", f"{p99[name] * 1e3:.1f}"] for name in running]
        table(["", "p50", "p99"], rows)
        ratio = p99["continuous"] / p99["static batches"]
        search = "greedy" if beam == 1 else "beam 4"
        targets.append((f"p99 of arrivals against static batches, {search}", "≤ 0.6", ratio, ratio <= 0.6))
    for side in running.values():
        side.close()


def memory(directory: Path, sentences: Sentences, targets: list[tuple[str, str, float, bool]]) -> None:
    title(f"Growth in MB from one warm sentence to {len(sentences)} in flight, a model as large as OPUS-MT's, beam 4")
    growth = {}
    for name, make in (
        ("Tolk int8", (Ours, directory, "int8")),
        ("CTranslate2 int8", lane_per_core(directory, "int8")),
    ):
        with process(name, make) as side:
            growth[name] = side.ask("growth", sentences, 4, OPUS["tokens"])[1]
    table(["", "MB"], [[name, f"{size / 1e6:.0f}"] for name, size in growth.items()])
    ratio = growth["Tolk int8"] / growth["CTranslate2 int8"]
    targets.append(("growth of memory against CTranslate2", "≤ 1.5", ratio, ratio <= 1.5))


def sides(directory: Path) -> list[tuple[str, tuple[Any, ...]]]:
    return [
        ("transformers float32", (Transformers, directory, "float32")),
        ("CTranslate2 float32", lane_per_core(directory, "float32")),
        ("CTranslate2 int8", lane_per_core(directory, "int8")),
        *((f"Tolk {precision}", (Ours, directory, precision)) for precision in PRECISIONS),
    ]


def lane_per_core(directory: Path, precision: str) -> tuple[Any, ...]:
    return (CTranslate2, directory, precision, cores())


@contextmanager
def process(name: str, make: tuple[Any, ...]) -> Iterator[Process]:
    side = Process(name, *make)
    try:
        yield side
    finally:
        side.close()


def sample(sentences: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the sentences, evenly spaced."""
    return list(sentences[:: max(1, len(sentences) // max(1, count))][:count])


def title(text: str) -> None:
    print(f"\n{text}\n", flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
