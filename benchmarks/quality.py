"""Compares Tolk's translations with those of transformers: default model, float32, one thread, sorted sentences.

python benchmarks/quality.py [DATA.tsv[.gz]]

A line of DATA is a sentence, a tab and its translation. Without DATA, the benchmark translates the sentences of the
tests, and reports only the number of identical outputs.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import MarianMTModel

from models.engine.engine import Engine
from models.engine.options import DecodingOptions
from models.engine.settings import EngineSettings
from models.network.marian import Marian
from models.tokenizer import Tokenizer
from models.training.evaluate import scores

HOUSE = Path(__file__).parents[1]
MODEL = HOUSE / "models" / "embedded" / "fr-en"
TESTS = HOUSE / "tests" / "data" / "sentences.fr"
LIMIT = 200  # target tokens of a translation, including the end token
BATCH = 64  # sentences in a batch of transformers; the engine makes its own batches

Translate = Callable[[Sequence[Sequence[int]], int], Iterator[tuple[int, ...]]]  # sources, beam -> targets


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares Tolk's translations with those of transformers.")
    parser.add_argument("data", nargs="?", type=Path, default=TESTS, metavar="DATA.tsv[.gz]")
    pairs = [line.partition("\t") for line in read(parser.parse_args().data)]
    texts, _, references = zip(*sorted(pairs, key=lambda pair: len(pair[0])), strict=True)
    torch.set_num_threads(1)
    tokenizer = Tokenizer.load(MODEL)
    sources = [tokenizer.encode(text) for text in texts]
    for beam in (1, 4):
        outputs = []
        for name, translate in (("Tolk", ours()), ("transformers", theirs())):
            outputs.append(list(translate(sources, beam)))
            if any(references):
                found = [tokenizer.decode(tokens) for tokens in outputs[-1]]
                bleu, chrf = scores(found, references, resamples=0)
                print(f"beam {beam}  {name:12}  BLEU {bleu.score:5.2f}  chrF {chrf.score:5.2f}", flush=True)
        same = sum(a == b for a, b in zip(*outputs, strict=True))
        print(f"beam {beam}  identical: {same} of {len(sources)}, {same / len(sources):.2%}", flush=True)


def read(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file]


def ours() -> Translate:
    engine = Engine(Marian.load(MODEL), EngineSettings(lanes=1))
    engine.start()

    def translate(sources: Sequence[Sequence[int]], beam: int) -> Iterator[tuple[int, ...]]:
        pendings = [engine.submit(source, DecodingOptions(beam=beam, max_length=LIMIT)) for source in sources]
        yield from (pending.result()[0].tokens for pending in pendings)

    return translate


def theirs() -> Translate:
    model = MarianMTModel.from_pretrained(MODEL, dtype=torch.float32)
    padding, end = model.config.pad_token_id, model.config.eos_token_id

    def translate(sources: Sequence[Sequence[int]], beam: int) -> Iterator[tuple[int, ...]]:
        for i in range(0, len(sources), BATCH):
            batch = [torch.tensor(source) for source in sources[i : i + BATCH]]
            padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=padding)
            rows = model.generate(padded, attention_mask=padded != padding, num_beams=beam, max_length=LIMIT + 1)
            for row in rows[:, 1:].tolist():
                yield tuple(row[: row.index(end)] if end in row else row)

    return translate


if __name__ == "__main__":
    main()
