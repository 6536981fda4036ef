"""Malicious directories: in a process with little memory, each is either loaded, or refused with a message.

The child process runs this module, too, so that a crash, a hang or too much memory affects only the child.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.engine.settings import EngineSettings
from models.errors import ModelError
from models.local import LocalTranslator

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel

ROOT = Path(__file__).parents[2]
MEMORY = 1 << 30  # bytes that the child may take in addition to what it has after its imports
NAMES = ["config.json", "generation_config.json", "tokenizer_config.json", "vocab.json", "source.spm", "target.spm"]
NAMES += ["model.safetensors"]
KEYS = "model.decoder.layers.0.encoder_attn.k_proj.weight"

OPTIONAL = {"generation_config.json", "tokenizer_config.json"}

Spoil = Callable[[Path], object]


def put(path: Path, content: bytes | str) -> None:
    """Writes a file that replaces the link."""
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def link(path: Path, to: str) -> None:
    path.unlink()
    path.symlink_to(to)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def sparse(path: Path) -> None:
    path.unlink()
    with path.open("wb") as file:
        file.truncate(5 << 30)


OF_ANY_FILE: dict[str, Spoil] = {
    "missing": Path.unlink,
    "dangling": lambda path: link(path, "nowhere"),
    "loop": lambda path: link(path, path.name),
    "zeros without end": lambda path: link(path, "/dev/zero"),
    "nothing at all": lambda path: link(path, "/dev/null"),
    "somebody else's": lambda path: link(path, "/etc/passwd"),
    "the kernel's": lambda path: link(path, "/proc/self/environ"),
    "pipe": fifo,
    "directory": folder,
    "empty": lambda path: put(path, b""),
    "five gigabytes": sparse,
    "random": lambda path: put(path, bytes(range(256)) * 100),
    "text": lambda path: put(path, "[[[" * 5_000_000),
}


def changes(name: str, **values: Any) -> Spoil:
    def spoil(directory: Path) -> None:
        put(directory / name, json.dumps(json.loads((directory / name).read_text()) | values))

    return spoil


def tensors(**changed: Callable[[Tensor], Tensor]) -> Spoil:
    """Changes the tensors of model.safetensors whose names have these endings."""

    def spoil(directory: Path) -> None:
        path = directory / "model.safetensors"
        weights = load_file(path)
        for end, change in changed.items():
            name = next(name for name in weights if name.endswith(end.replace("__", ".")))
            weights[name] = change(weights[name])
        path.unlink()
        save_file(weights, path)

    return spoil


def as_bin(change: Callable[[dict[str, Tensor]], object]) -> Spoil:
    def spoil(directory: Path) -> None:
        weights = {name: tensor.float() for name, tensor in load_file(directory / "model.safetensors").items()}
        (directory / "model.safetensors").unlink()
        torch.save(change(weights), directory / "pytorch_model.bin")

    return spoil


def both(first: Spoil, second: Spoil) -> Spoil:
    return lambda directory: (first(directory), second(directory))


def rename(directory: Path, token: str) -> None:
    """Renames the last token of the vocabulary."""
    ids = json.loads((directory / "vocab.json").read_text())
    _, last = ids.popitem()
    put(directory / "vocab.json", json.dumps(ids | {token: last}))


def cut(path: Path) -> None:
    put(path, path.read_bytes()[:-100])


OF_ONE: dict[str, tuple[Spoil, str]] = {
    f"config {values}": (changes("config.json", **values), rf"config\.json.*{next(iter(values))}.* expected")
    for values in (
        {"d_model": 10**9},
        {"d_model": 0},
        {"d_model": -16},
        {"d_model": 16.0},
        {"d_model": True},
        {"d_model": float("nan")},
        {"d_model": float("inf")},
        {"d_model": "x\x1b[31m" * 1000},
        {"d_model": [[16]]},
        {"vocab_size": 10**12},
        {"decoder_vocab_size": 0},
        {"encoder_layers": 10**6},
        {"decoder_layers": False},
        {"decoder_ffn_dim": 10**9},
        {"max_position_embeddings": 10**9},
        {"max_position_embeddings": 1},
        {"encoder_attention_heads": 0},
        {"eos_token_id": -1},
        {"tie_word_embeddings": 1},
        {"activation_function": {}},
        {"model_type": "llama"},
        {"model_type": {"a": ["marian"] * 10_000}},
    )
} | {
    f"generation_config {values}": (
        changes("generation_config.json", **values),
        rf"generation_config\.json.*{next(iter(values))}",
    )
    for values in (
        {"max_length": 10**9},
        {"max_length": 1},
        {"max_length": False},
        {"num_beams": 10**6},
        {"num_beams": 0},
        {"num_beams": "4"},
    )
}
OF_ONE |= {
    "wider than the tensors": (changes("config.json", d_model=8192), r"model\.safetensors.*were expected"),
    "more words than the tensors": (changes("config.json", vocab_size=1 << 18, decoder_vocab_size=1 << 18), "expected"),
    "more layers than the tensors": (changes("config.json", encoder_layers=64), r"model\.safetensors.*lacks"),
    "more within than the tensors": (changes("config.json", encoder_ffn_dim=1 << 15), r"fc1.*were expected"),
    "heads": (changes("config.json", encoder_attention_heads=3), r"config\.json.*multiple"),
    "activation": (changes("config.json", activation_function="os.system"), r"config\.json.*activation_function"),
    "eos": (changes("config.json", eos_token_id=10**5), r"config\.json.*vocabulary"),
    "pad": (changes("config.json", pad_token_id=10**5), r"config\.json.*vocabulary"),
    "start": (changes("config.json", decoder_start_token_id=10**5), r"config\.json.*vocabulary"),
    "forced": (changes("generation_config.json", forced_eos_token_id=10**5), r"config\.json.*vocabulary"),
    "bad words": (changes("generation_config.json", bad_words_ids=[[10**5]]), r"config\.json.*vocabulary"),
    "bad word": (changes("generation_config.json", bad_words_ids=0), r"config\.json.*bad_words_ids"),
    "bad kind of words": (changes("generation_config.json", bad_words_ids=[["2"]]), r"config\.json.*bad_words_ids"),
    "separate": (changes("tokenizer_config.json", separate_vocabs="yes"), r"tokenizer_config\.json.*separate_vocabs"),
    "limit": (changes("tokenizer_config.json", model_max_length=1), r"tokenizer_config\.json.*model_max_length"),
    "language": (changes("tokenizer_config.json", source_lang="\x1b[31m\n"), r"tokenizer_config\.json.*source_lang"),
    "languages": (changes("tokenizer_config.json", target_lang=[["en"]]), r"tokenizer_config\.json.*target_lang"),
    "ids doubled": (changes("vocab.json", a=5), r"vocab\.json.*same id"),
    "id negative": (changes("vocab.json", a=-1), r"vocab\.json.*below"),
    "id too large": (changes("vocab.json", a=10**6), r"vocab\.json.*below"),
    "id true": (changes("vocab.json", **{"<unk>": True}), r"vocab\.json.*below"),
    "token with NUL": (lambda d: rename(d, "a\0"), r"vocab\.json.*NUL"),
    "token with a surrogate": (lambda d: rename(d, "a\ud800"), r"vocab\.json.*surrogate"),
    "token twice": (lambda d: put(d / "vocab.json", '{"</s>": 0, "</s>": 1}'), r"vocab\.json.*twice"),
    "no specials": (lambda d: put(d / "vocab.json", '{"a": 0}'), r"vocab\.json.*lacks"),
    "of integers": (tensors(fc1__weight=Tensor.long), "fc1.*floats of"),
    "of truths": (tensors(fc1__weight=Tensor.bool), "fc1.*floats of"),
    "of 8 bits": (tensors(fc1__weight=lambda x: x.to(torch.float8_e4m3fn)), "fc1.*floats of"),
    "of complex numbers": (tensors(fc1__weight=lambda x: x.to(torch.complex64)), "fc1.*floats of"),
    "of another shape": (tensors(fc1__weight=lambda x: x.t().contiguous()), "fc1.*floats of"),
    "of one dimension more": (tensors(fc1__weight=lambda x: x[None]), "fc1.*floats of"),
    "of nothing": (tensors(fc1__weight=lambda x: x[:0]), "fc1.*floats of"),
    "nan": (tensors(fc1__weight=lambda x: x * torch.nan), "fc1.*nan"),
    "infinity": (tensors(model__shared__weight=lambda x: x / 0), r"embed_tokens.*infinity"),
    "too large": (tensors(layer_norm__bias=lambda x: x + 1e300), r"layer_norm.*more than float32"),
    "too large for int8": (tensors(fc1__weight=lambda x: x * 0 + 3e38), "too large for int8"),
    "tensors of no layer": (
        as_bin(lambda w: w | {"\x1b[31m" * 1000 + str(i): w[KEYS] for i in range(50)}),
        "a Marian model does not have",
    ),
    "tensor that grows": (
        as_bin(lambda w: w | {"model.shared.weight": torch.zeros(1).expand(1 << 18, 8192)}),
        r"pytorch_model\.bin",
    ),
    "tensors that share": (
        as_bin(lambda w: w | dict.fromkeys((KEYS, KEYS.replace("k_proj", "q_proj")), w[KEYS])),
        "share",
    ),
    "sparse": (as_bin(lambda w: w | {KEYS: w[KEYS].to_sparse()}), r"pytorch_model\.bin"),
    "no tensor": (as_bin(lambda w: w | {KEYS: "text"}), r"pytorch_model\.bin: .*table of tensors"),
    "spm of an unfinished download": (lambda d: cut(d / "source.spm"), r"source\.spm"),
    "spm and spm": (lambda d: put(d / "target.spm", (d / "target.spm").read_bytes() * 2), r"target\.spm"),
}
LOADED: dict[str, Spoil] = {
    "as it was": lambda directory: None,
    "code of its own": both(
        changes(
            "config.json",
            auto_map={"AutoConfig": "trap.Config", "AutoModel": "trap.Model"},
            custom_pipelines={"translation": {"impl": "trap.Pipeline"}},
            architectures=["trap.Model"],
            tokenizer_class="trap.Tokenizer",
        ),
        lambda directory: put(directory / "trap.py", "raise SystemExit('the trap closed')"),
    ),
    "sides swapped": lambda directory: (
        (directory / "source.spm").rename(directory / "other"),
        (directory / "target.spm").rename(directory / "source.spm"),
        (directory / "other").rename(directory / "target.spm"),
    ),
    "no options of generation": lambda d: (d / "generation_config.json").unlink(),
    "no options of its tokenizer": lambda d: (d / "tokenizer_config.json").unlink(),
    "everything banned": changes("generation_config.json", bad_words_ids=[[i] for i in range(1, 150)]),
    "shortest": changes("generation_config.json", max_length=2),
    "longest": changes("config.json", max_position_embeddings=8192),
    "widest beam": changes("generation_config.json", num_beams=64),
}


@pytest.fixture(scope="module")
def valid(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid model. It also has a pytorch_model.bin, which is ignored as long as there is model.safetensors."""
    directory = shutil.copytree(make_model(), tmp_path_factory.mktemp("valid") / "model")
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    return directory


def spoilt(valid: Path, directory: Path, spoil: Spoil) -> Path:
    """A model of links, as in Hugging Face's cache, except for the spoilt files."""
    directory.mkdir()
    for name in NAMES:
        (directory / name).symlink_to(valid / name)
    spoil(directory)
    return directory


def load_all(directories: list[Path]) -> list[dict[str, str]]:
    """The outcome of loading each directory in a child with little memory. Only the outcomes may be printed to standard
    output."""
    program = "import sys; from tests.models import test_hostile; test_hostile.child(sys.stdin.read().splitlines())"
    child = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        input="\n".join(map(str, directories)),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return [json.loads(line) for line in child.stdout.splitlines()]


def child(directories: list[str]) -> None:
    for precision in ("int8", "float32"):
        outcome(directories[0], precision)  # imports and compiles
    limit_memory()
    for directory in directories[1:]:
        error, message = outcome(directory, "int8")
        sys.stdout.write(json.dumps({"error": error, "message": message}) + "\n")


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def outcome(directory: str, precision: str) -> tuple[str, str]:
    """The name and message of the ModelError that loading or translating raised. Any other error ends the child."""
    try:
        with LocalTranslator.load(directory, precision=precision, settings=EngineSettings(lanes=1)) as translator:
            translator.warm_up()
            [translation] = translator.translate(["Je vais dormir."], target="eng").results
            if translation.error:
                raise translation.error
    except ModelError as error:
        return type(error).__name__, str(error)
    return "", ""


def test_a_directory_is_refused_in_a_sentence_that_names_the_file_or_only_odd_and_loaded(
    valid: Path, tmp_path: Path
) -> None:
    cases: dict[str, tuple[Spoil, str | None]] = {**OF_ONE, **{odd: (spoil, None) for odd, spoil in LOADED.items()}}
    for name in [*NAMES, "pytorch_model.bin"]:
        for what, spoil in OF_ANY_FILE.items():
            if what != "missing" or name not in OPTIONAL:
                cases[f"{name}: {what}"] = (partial(spoil_file, valid, name, spoil), re.escape(name))
    directories = [spoilt(valid, tmp_path / str(i), spoil) for i, (spoil, _) in enumerate(cases.values())]
    for (case, (_, said)), found in zip(cases.items(), load_all([valid, *directories]), strict=True):
        if said is None:
            assert found["error"] == "", (case, found)
            continue
        assert found["error"] == "UnknownModel", (case, found)
        assert re.search(said, found["message"]), (case, found)
        assert found["message"].isprintable(), (case, found)
        assert len(found["message"]) < 600, (case, found)


def spoil_file(valid: Path, name: str, spoil: Spoil, directory: Path) -> None:
    if name == "pytorch_model.bin":
        (directory / "model.safetensors").unlink()
        (directory / name).symlink_to(valid / name)
    spoil(directory / name)


def test_spoilt_bytes_are_refused_or_loaded(valid: Path, tmp_path: Path) -> None:
    """Spoils the bytes of every file, in one process. The test fails if the process crashes."""
    program = (
        "import sys; from tests.models import test_hostile; test_hostile.fuzz(*map(test_hostile.Path, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, valid, tmp_path]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert child.returncode == 0, child.stderr[-4000:]


def fuzz(valid: Path, scratch: Path, examples: int = 12) -> None:
    outcome(str(valid), "float32")
    limit_memory()
    for name in [*NAMES, "pytorch_model.bin"]:
        directory = spoilt(valid, scratch / name, lambda directory: None)
        if name == "pytorch_model.bin":
            (directory / "model.safetensors").unlink()
        whole = (valid / name).read_bytes()

        @settings(max_examples=examples, derandomize=True, database=None, deadline=20_000)
        @given(content=mutations(whole))
        def check(path: Path, content: bytes) -> None:
            put(path, content)
            error, message = outcome(str(path.parent), "float32")
            assert message.isprintable()
            assert error != "UnknownModel" or path.name in message

        check(directory / name)


def mutations(whole: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with a few of them changed, left out or moved; or other bytes altogether.

    Half of the changes are near the beginning or the end, where formats have their headers and tables.
    """
    places = (st.integers(0, len(whole)) | st.integers(-200, 200)).map(lambda place: place % len(whole))
    edits = st.tuples(places, st.integers(0, 8) | places, st.binary(max_size=8) | places.map(lambda p: whole[p:][:40]))

    def edited(edits: list[tuple[int, int, bytes]]) -> bytes:
        content = whole
        for place, length, new in edits:
            content = content[:place] + new + content[place + length :]
        return content

    def flipped(places: list[tuple[int, int]]) -> bytes:
        content = bytearray(whole)
        for place, bit in places:
            content[place] ^= 1 << bit
        return bytes(content)

    flips = st.lists(st.tuples(places, st.integers(0, 7)), min_size=1, max_size=20).map(flipped)
    return (
        flips
        | flips
        | st.lists(edits, min_size=1, max_size=3).map(edited)
        | places.map(lambda p: whole[:p])
        | st.binary()
    )
