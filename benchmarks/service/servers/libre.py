"""LibreTranslate, with two changes in its favour: greedy, and no sentence splitter, which it would have to download."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.service.servers.ctranslate import CORES, MODEL, PORT

if __name__ == "__main__":
    directory = Path(os.environ["BENCH_DIRECTORY"])
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        os.environ[name] = str(directory / name.lower())
    os.environ |= {
        "ARGOS_PACKAGES_DIR": str(MODEL / "argos"),
        "ARGOS_INTER_THREADS": str(CORES),
        "ARGOS_INTRA_THREADS": "1",
        "ARGOS_COMPUTE_TYPE": "int8",
        "ARGOS_BEAM_SIZE": "1",
        "ARGOS_CHUNK_TYPE": "MINISBD",
    }
    os.chdir(directory)

    from argostranslate import sbd, translate

    class Whole(sbd.ISentenceBoundaryDetectionModel):
        def __init__(self, package: object) -> None:
            self.package = package

        def split_sentences(self, text: str) -> list[str]:
            return [text]

    translate.MiniSBDSentencizer = Whole
    sys.argv = ["libretranslate", "--host", "127.0.0.1", "--port", str(PORT), "--load-only", "fr,en", "--threads", "4"]
    sys.argv += ["--disable-web-ui", "--disable-files-translation"]
    from libretranslate.main import main

    main()
