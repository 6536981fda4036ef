"""The engines that `benchmarks.engine` compares, each in a process of its own that waits for commands.

A side translates all sentences at once, in batches of its own, or one sentence alone. Its time includes tokenisation:
all sides use SentencePiece, string by string. Sentences that are lists of token ids need none.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

Sentences = Sequence[str | list[int]]
BATCHES = (16, 32, 64, 128)  # batch sizes, in sentences, among which CTranslate2 and transformers choose


class Side(Protocol):
    def translate(self, sentences: Sentences, beam: int, limit: int) -> list[Any]:
        """The translations, in order: texts for texts, token ids for token ids; of at most `limit` target tokens."""

    def tune(self, sentences: Sentences, beam: int, limit: int) -> str:
        """Chooses the batch size that translates these sentences fastest, and returns a description of it."""


class Ours:
    """Tolk's engine as a worker runs it, without the task queue."""

    def __init__(self, directory: Path, precision: str, static: bool = False) -> None:
        from models.engine.engine import Engine
        from models.engine.settings import EngineSettings
        from models.network.precision import load

        model, settings = load(directory, precision=precision), EngineSettings()
        self.engine = Engine(model, settings, scheduler=static_scheduler(settings, model.device) if static else None)
        self.engine.start()
        self.tokenizer = tokenizer(directory)
        gc.collect()
        gc.freeze()  # as a worker does

    def translate(self, sentences: Sentences, beam: int, limit: int) -> list[Any]:
        pendings = [self.submit(sentence, beam, limit) for sentence in sentences]
        found = [list(pending.result()[0].tokens) for pending in pendings]
        return [self.tokenizer.decode(tokens) for tokens in found] if isinstance(sentences[0], str) else found

    def submit(self, sentence: str | list[int], beam: int, limit: int) -> Any:
        from models.engine.options import DecodingOptions

        tokens = self.tokenizer.encode(sentence) if isinstance(sentence, str) else sentence
        return self.engine.submit(tokens, DecodingOptions(beam=beam, max_length=limit + 1))

    def tune(self, sentences: Sentences, beam: int, limit: int) -> str:
        self.translate(sentences, beam, limit)
        return "continuous"

    def arrivals(self, sentences: Sentences, beam: int, limit: int, times: Sequence[float]) -> list[float]:
        """Submits each sentence at its time of `times`, in seconds from now. Returns the seconds until each answer."""
        done = [0.0] * len(times)
        start = time.perf_counter() + 0.1
        pendings = []
        for i, (sentence, at) in enumerate(zip(sentences, times, strict=True)):
            if (early := start + at - time.perf_counter()) > 0:  # if it is late already, sleep would delay it further
                time.sleep(early)
            pending = self.submit(sentence, beam, limit)
            pending.add_done_callback(lambda _, i=i: done.__setitem__(i, time.perf_counter()))
            pendings.append(pending)
        for pending in pendings:
            pending.result()
        return [end - start - at for end, at in zip(done, times, strict=True)]


class CTranslate2:
    def __init__(self, directory: Path, precision: str, lanes: int) -> None:
        import ctranslate2
        from sentencepiece import SentencePieceProcessor

        self.translator = ctranslate2.Translator(
            str(directory / "ctranslate2"), compute_type=precision, inter_threads=lanes, intra_threads=1
        )
        self.source, self.target = (
            SentencePieceProcessor(model_file=str(directory / name)) for name in ("source.spm", "target.spm")
        )
        self.batch = {1: 32, 4: 32}
        self.ids = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
        self.names = {index: piece for piece, index in self.ids.items()}

    def translate(self, sentences: Sentences, beam: int, limit: int) -> list[Any]:
        sources = [
            [*self.source.encode(sentence, out_type=str), "</s>"]
            if isinstance(sentence, str)
            else [self.names[token] for token in sentence]
            for sentence in sentences
        ]
        results = self.translator.translate_batch(
            sources, beam_size=beam, max_batch_size=self.batch[beam], max_decoding_length=limit, return_scores=True
        )
        if isinstance(sentences[0], str):
            return [self.target.decode_pieces(result.hypotheses[0]) for result in results]
        return [[self.ids[piece] for piece in result.hypotheses[0]] for result in results]

    def tune(self, sentences: Sentences, beam: int, limit: int) -> str:
        return str(
            fastest(self, "batch", [{**self.batch, beam: size} for size in BATCHES], sentences, beam, limit)[beam]
        )


class Transformers:
    def __init__(self, directory: Path, precision: str) -> None:
        import torch
        from transformers import MarianMTModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.torch = torch
        self.model = MarianMTModel.from_pretrained(directory, dtype=getattr(torch, precision)).eval()
        self.tokenizer = tokenizer(directory)
        self.way = {1: (64, 1), 4: (32, 1)}  # sentences in a batch, batches at once

    def translate(self, sentences: Sentences, beam: int, limit: int) -> list[Any]:
        encode = self.tokenizer.encode
        sources = [encode(sentence) if isinstance(sentence, str) else sentence for sentence in sentences]
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        size, at_once = self.way[beam]
        self.torch.set_num_threads(max(1, cores() // at_once))
        found: list[list[int]] = [[] for _ in sources]
        with ThreadPoolExecutor(at_once) as threads:
            batches = [order[i : i + size] for i in range(0, len(order), size)]
            outputs = threads.map(lambda batch: self._generate([sources[i] for i in batch], beam, limit), batches)
            for batch, rows in zip(batches, outputs, strict=True):
                for i, row in zip(batch, rows, strict=True):
                    found[i] = row
        return [self.tokenizer.decode(row) for row in found] if isinstance(sentences[0], str) else found

    def _generate(self, sources: list[list[int]], beam: int, limit: int) -> list[list[int]]:
        padding, end = self.model.config.pad_token_id, self.model.config.eos_token_id
        longest = max(map(len, sources))
        padded = self.torch.tensor([[*source, *[padding] * (longest - len(source))] for source in sources])
        with self.torch.inference_mode():
            rows = self.model.generate(
                padded, attention_mask=padded != padding, num_beams=beam, max_length=limit + 1, early_stopping=False
            )
        return [row[: row.index(end)] if end in row else row for row in rows[:, 1:].tolist()]

    def tune(self, sentences: Sentences, beam: int, limit: int) -> str:
        ways = [{**self.way, beam: (size, at_once)} for size in BATCHES[1:] for at_once in sorted({1, cores()})]
        size, at_once = fastest(self, "way", ways, sentences, beam, limit)[beam]
        return f"{size}, {at_once} at once"


def fastest(side: Any, setting: str, values: Sequence[Any], sentences: Sentences, beam: int, limit: int) -> Any:
    """Sets the side's attribute `setting` to the fastest of `values` for these sentences, and returns that value."""
    taken = []
    for value in values:
        setattr(side, setting, value)
        began = time.perf_counter()
        side.translate(sentences, beam, limit)
        taken.append(time.perf_counter() - began)
    best = values[taken.index(min(taken))]
    setattr(side, setting, best)
    return best


def tokenizer(directory: Path) -> Any:
    from models.tokenizer import Tokenizer

    return Tokenizer.load(directory)


def static_scheduler(settings: Any, device: Any) -> Any:
    """A scheduler with static batches: a lane admits sentences only when it has none left."""
    from models.engine.scheduler import Scheduler

    class Static(Scheduler[Any]):
        def admit(self, lane: int, now: float) -> list[Any]:
            return [] if self.held(lane) else super().admit(lane, now)

    return Static(settings.token_budget, settings.max_waiting, lanes=settings.lanes_on(device))


def cores() -> int:
    return len(os.sched_getaffinity(0))


def resident(highest: bool = False) -> int:
    """Resident bytes of this process: now, or if `highest` the maximum since `forget_highest`."""
    name = "VmHWM" if highest else "VmRSS"
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) * 1024


def forget_highest() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Process:
    """A side that runs in a process of its own."""

    def __init__(self, name: str, kind: type[Any], *arguments: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind, arguments), daemon=True)
        self._process.start()
        self._connection.recv()

    def ask(self, method: str, *arguments: Any) -> tuple[float, Any]:
        """Calls a method of the side. Returns the seconds that it took, and its result.

        The method `growth` is not the side's: it measures the growth of memory during `translate`.
        """
        self._connection.send((method, arguments))
        seconds, answer = self._connection.recv()
        if isinstance(answer, BaseException):
            raise answer
        return seconds, answer

    def close(self) -> None:
        self._connection.close()
        self._process.join(10)
        self._process.terminate()


def _serve(connection: Connection, kind: type[Any], arguments: Sequence[Any]) -> None:
    side = kind(*arguments)
    connection.send("ready")
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            os._exit(0)  # does not wait for the side's threads
        began = time.perf_counter()
        try:
            answer = _growth(side, *arguments) if method == "growth" else getattr(side, method)(*arguments)
        except Exception as error:  # noqa: BLE001 - the other process raises it
            answer = error
        connection.send((time.perf_counter() - began, answer))


def _growth(side: Side, sentences: Sentences, beam: int, limit: int) -> int:
    """The largest growth of the process's memory, in bytes, during the translation of all sentences after the first."""
    side.translate(sentences[:1], beam, limit)
    side.translate(sentences[:1], beam, limit)
    before = resident()
    forget_highest()
    side.translate(sentences, beam, limit)
    return resident(highest=True) - before
