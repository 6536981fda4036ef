"""How often the language of a text is found: `python -m benchmarks.detection FILE …`, of lines LANGUAGE, tab, text.

For each file: the share that is right of all texts and of short ones, each by itself, and in requests of ten texts in
one language; the error of calibration, over ten bands of confidence; how many texts are said to be in a language that
is not served; and the CPU time of a text.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from text.detection import SHORT, Detection, Detector

TOGETHER = 10  # texts of a request
BANDS = 10  # of confidence


def main(paths: Sequence[str]) -> None:
    detector = Detector()
    detector.detect(["a"], ["en"])  # loads the model
    for path in paths:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        texts = [(language, text) for language, _, text in (line.partition("\t") for line in lines)]
        measure(detector, path, texts)


def measure(detector: Detector, name: str, texts: Sequence[tuple[str, str]]) -> None:
    """Prints one line. All languages of the texts are served."""
    served = list(dict.fromkeys(language for language, _ in texts))
    began = time.process_time()
    alone = [(language, text, detector.detect([text], served)[0]) for language, text in texts]
    took = time.process_time() - began
    right = [_is(found, language) for language, _, found in alone]
    short = [_is(found, language) for language, text, found in alone if len(text) < SHORT]
    together = [
        _is(found, language)
        for language in served
        for some in _batches([text for each, text in texts if each == language])
        for found in detector.detect(some, served)
    ]
    unserved = sum(found.unserved is not None for _, _, found in alone)
    print(
        f"{name}: {len(texts)} texts, {' '.join(served)}: {mean(right):.1%} right, "
        f"{mean(short):.1%} of {len(short)} below {SHORT} characters, {mean(together):.1%} in tens; "
        f"calibration {_calibration(alone):.1%}; {unserved} not served; {took / len(texts) * 1e6:.0f} µs"
    )


def _is(found: Detection, language: str) -> bool:
    return found.unserved is None and found.best is not None and found.best.language == language


def _batches(texts: list[str]) -> list[list[str]]:
    random.Random(1).shuffle(texts)
    return [texts[at : at + TOGETHER] for at in range(0, len(texts), TOGETHER)]


def _calibration(alone: Sequence[tuple[str, str, Detection]]) -> float:
    """The mean difference between the confidence and the share that is right, in bands of the confidence."""
    bands: dict[int, list[tuple[float, bool]]] = {}
    for language, _, found in alone:
        if found.best is not None:
            band = min(int(found.best.probability * BANDS), BANDS - 1)
            bands.setdefault(band, []).append((found.best.probability, _is(found, language)))
    errors = (len(band) * abs(mean(p for p, _ in band) - mean(right for _, right in band)) for band in bands.values())
    return sum(errors) / len(alone)


if __name__ == "__main__":
    main(sys.argv[1:])
