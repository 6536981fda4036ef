"""Compares the whole service with other servers over the same weights: FastAPI, LibreTranslate and Ray Serve.

python -m benchmarks.service [DATA.tsv[.gz]] [--peers fastapi,ray] [--clients 1,8,32,64] [--rounds N] [--seconds S]

Clients send greedy requests of one sentence, and of five, each as soon as it has its answer. Every answer is checked.
Every round starts every server once, one after the other; the reported numbers are medians. CPU is that of all
processes of a server. The peers run CTranslate2 int8, as their experts would; each has an environment of its own in the
user's cache directory, which is installed when it is first needed. A line of DATA is a sentence and a tab; without
DATA, the sentences of the tests are sent.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import psutil
from ctranslate2.converters import TransformersConverter

from benchmarks.path import cpu, free_port, processor
from benchmarks.quality import HOUSE, MODEL, TESTS, read
from benchmarks.service.judge import Judge, Verdict
from benchmarks.service.load import Answer, closed_loop, post
from benchmarks.service.peers import PEERS, Peer, environment

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tolk" / "bench"
SENTENCES = (1, 5)  # of a request
START = 180.0  # seconds that a server has to start in
WARM_UP = 2.0  # seconds before each measurement
RIGHT, WRONG = 0.95, 0.01  # the least and the largest share of right and of wrong answers of a valid row


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement: requests a second, milliseconds of a request, milliseconds of CPU of a request, and whether the
    answers were right."""

    rate: float
    p50: float
    p99: float
    cpu: float
    valid: bool


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares the whole service with other servers.")
    parser.add_argument("data", nargs="?", type=Path, default=TESTS, metavar="DATA.tsv[.gz]")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--clients", default="1,8,32,64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    options = parser.parse_args()
    names, clients = options.peers.split(","), [int(each) for each in options.clients.split(",")]
    texts = sorted({line.partition("\t")[0] for line in read(options.data)})
    random.Random(1).shuffle(texts)
    pythons = {name: environment(PEERS[name], CACHE) for name in names}
    rows: dict[tuple[str, int, int], list[Row]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        model = prepare(Path(scratch))
        judge = Judge(texts[:1000], model)
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                with serving(name, pythons[name], model, Path(scratch)) as (process, port):
                    for sentences in SENTENCES:
                        for count in clients:
                            row = measure(PEERS[name], process, port, judge, sentences, count, options.seconds)
                            rows.setdefault((name, sentences, count), []).append(row)
                            print(name, sentences, count, row, file=sys.stderr, flush=True)
    print(machine(options.rounds))
    for sentences in SENTENCES:
        print(table(rows, names, clients, sentences))


def prepare(scratch: Path) -> Path:
    """The model in all formats that the servers read: Hugging Face's, CTranslate2's, and two packages of Argos."""
    model = scratch / "model"
    shutil.copytree(MODEL, model / "hf")
    for precision in ("float32", "int8"):
        TransformersConverter(str(model / "hf")).convert(str(model / precision), quantization=precision)
    for one, other in (("fr", "en"), ("en", "fr")):  # LibreTranslate offers what is a source and a target
        package = model / "argos" / f"translate-{one}_{other}-1_0"
        shutil.copytree(model / "int8", package / "model")
        settings = json.loads((package / "model" / "config.json").read_text(encoding="utf-8"))
        settings["add_source_eos"] = True  # Argos does not end a source as Marian expects
        (package / "model" / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        shutil.copy(model / "hf" / "source.spm", package / "sentencepiece.model")
        about = {"package_version": "1.0", "argos_version": "1.9", "type": "translate"}
        about |= {"from_code": one, "from_name": one, "to_code": other, "to_name": other}
        (package / "metadata.json").write_text(json.dumps(about), encoding="utf-8")
    (model / "models.toml").write_text(
        f'[models.fr-en]\nreference = "{model / "hf"}"\npairs = [{{ source = "fr", target = "en" }}]\n'
        "decoding = { beam = 1 }\n",
        encoding="utf-8",
    )
    return model


@contextmanager
def serving(name: str, python: Path, model: Path, scratch: Path) -> Iterator[tuple[psutil.Process, int]]:
    """A running server, which answers, and its port. Raises RuntimeError, with its log, if it does not start."""
    port, directory = free_port(), scratch / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    log = directory / "log"
    settings = {
        "BENCH_MODEL": str(model),
        "BENCH_DIRECTORY": str(directory),
        "PYTHONPATH": str(HOUSE),
        "PORT": str(port),
        "TOLK_MODELS": str(model / "models.toml"),
    }
    command = [str(python), *PEERS[name].command(directory)]
    with log.open("wb") as output:
        process = psutil.Popen(command, cwd=HOUSE, env=os.environ | settings, stdout=output, stderr=output)
    try:
        wait(PEERS[name], port, process, log)
        yield process, port
    finally:
        end(process)


def wait(peer: Peer, port: int, process: psutil.Popen, log: Path) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        try:
            if peer.texts(post(port, peer.request(["Il pleut."])).body):
                return
        except (OSError, ValueError, LookupError, TypeError):
            time.sleep(0.3)
    raise RuntimeError(f"The server did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-4000:]}")


def end(process: psutil.Popen) -> None:
    """Ends a server and all that it started."""
    everyone = process.children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except psutil.TimeoutExpired:
        process.kill()
    _, left = psutil.wait_procs(everyone, 10)
    for each in left:
        each.kill()


def measure(
    peer: Peer, process: psutil.Process, port: int, judge: Judge, sentences: int, clients: int, seconds: float
) -> Row:
    groups = [range(i, i + sentences) for i in range(0, len(judge.texts) - sentences + 1, sentences)]
    requests = [peer.request([judge.texts[i] for i in group]) for group in groups]
    closed_loop(port, requests, clients, WARM_UP)
    before, began = cpu(process), time.perf_counter()
    answers = closed_loop(port, requests, clients, seconds)
    elapsed = time.perf_counter() - began
    spent = cpu(process) - before
    took = [1000 * answer.seconds for answer in answers]
    verdicts = [verdict for answer in answers for verdict in _judged(peer, judge, answer, groups[answer.request])]
    share = {each: verdicts.count(each) / len(verdicts) for each in Verdict}
    valid = share[Verdict.RIGHT] >= RIGHT and share[Verdict.WRONG] <= WRONG and not share[Verdict.CROSSED]
    return Row(len(answers) / elapsed, median(took), quantiles(took, n=100)[98], 1000 * spent / len(answers), valid)


def _judged(peer: Peer, judge: Judge, answer: Answer, group: Sequence[int]) -> list[Verdict]:
    try:
        texts = peer.texts(answer.body)
    except (ValueError, LookupError, TypeError):
        texts = []
    if len(texts) != len(group):
        return [Verdict.WRONG] * len(group)
    return [judge(i, text) for i, text in zip(group, texts, strict=True)]


def table(rows: dict[tuple[str, int, int], list[Row]], names: Sequence[str], clients: Sequence[int], size: int) -> str:
    title = "one sentence a request" if size == 1 else f"{size} sentences a request"
    heads = "".join(f" c = {count}: requests/s, p50, p99 ms |" for count in clients)
    lines = [f"\n| {title} |{heads} CPU ms a request |  |", "| --- |" + " ---: |" * (len(clients) + 1) + " --- |"]
    for name in names:
        medians = [_median(rows[name, size, count]) for count in clients]
        cells = "".join(f" {row.rate:.0f}, {row.p50:.1f}, {row.p99:.1f} |" for row in medians)
        lines.append(f"| {PEERS[name].title} |{cells} {medians[-1].cpu:.2f} | {_valid(medians)} |")
    return "\n".join(lines)


def _median(some: Sequence[Row]) -> Row:
    rate, p50, p99, cpu = (median(getattr(row, name) for row in some) for name in ("rate", "p50", "p99", "cpu"))
    return Row(rate, p50, p99, cpu, all(row.valid for row in some))


def _valid(rows: Sequence[Row]) -> str:
    return "valid" if all(row.valid for row in rows) else "NOT VALID"


def machine(rounds: int) -> str:
    load = os.getloadavg()[0]
    return f"{processor()}, {os.cpu_count()} cores, load average {load:.1f} after; medians of {rounds} rounds."


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
