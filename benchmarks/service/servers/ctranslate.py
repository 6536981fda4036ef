"""CTranslate2 int8, greedy, as all of the peers use it. Their environments have none of Tolk's packages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

MODEL = Path(os.environ["BENCH_MODEL"])
PORT = int(os.environ["PORT"])
CORES = len(os.sched_getaffinity(0))
BATCH = 32  # sentences
LIMIT = 128  # target tokens

if "avx512vl" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
    os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")  # which it takes by itself only on Intel's processors


class Engine:
    """Translates batches, one on each core at a time: a matrix of this size is not worth two threads. Thread-safe."""

    def __init__(self) -> None:
        import ctranslate2
        from sentencepiece import SentencePieceProcessor

        self._pieces = SentencePieceProcessor(model_file=str(MODEL / "hf" / "source.spm"))
        self._translator = ctranslate2.Translator(
            str(MODEL / "int8"), compute_type="int8", inter_threads=CORES, intra_threads=1
        )

    def translate(self, texts: Sequence[str]) -> list[str]:
        # One text at a time: with a list, SentencePiece starts threads at every call.
        sources = [[*self._pieces.encode(text, out_type=str), "</s>"] for text in texts]
        results = self._translator.translate_batch(sources, beam_size=1, max_decoding_length=LIMIT)
        return [self._pieces.decode(result.hypotheses[0]) for result in results]
