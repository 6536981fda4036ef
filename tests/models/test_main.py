"""The command line: its output and its exit status."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from models.__main__ import main
from models.checkpoint.checksum import Checksum
from models.network.precision import Precision
from tests.models.elsewhere import Server, serving

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Runs a command; returns its exit status, standard output and standard error."""
    try:
        status = main(arguments)
    except SystemExit as exit_:  # raised by argparse
        status = int(exit_.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_translation_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "translate", "Je vais dormir.", "Il pleut.") == (0, "I'm going to sleep.\nIt's raining.\n", "")


def test_lines_of_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Il pleut.\r\n\n - Je dors.\n\xff\nMerci !")))
    status, out, err = run(capsys, "translate", "--model", "fr-en", "-")
    assert (status, out) == (1, "It's raining.\r\n\n - I'm sleeping.\n\nThank you!\n")
    assert err == (
        "python -m models: '\\udcff': Character 1 of the text is half of a surrogate pair (U+DCFF): "
        "send well-formed Unicode without it.\n"
    )


def test_json_says_everything(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "translate", "--json", "--nbest", "2", "Je vais dormir.", "a\x00")
    good, bad = map(json.loads, out.splitlines())
    assert status == 1
    assert good["text"] == "I'm going to sleep."
    assert good["score"] > good["alternatives"][0]["score"]
    assert (good["flags"], good["error"], bad["text"], bad["error"]["code"]) == ([], None, None, "BAD_INPUT")


def test_alternatives_follow_with_their_scores(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "translate", "--nbest", "3", "Je vais dormir.")
    best, *others = out.splitlines()
    assert best == "I'm going to sleep."
    assert [float(other.split("\t")[0]) < 0 for other in others] == [True, True]


def test_the_target_of_a_multilingual_model(capsys: pytest.CaptureFixture[str], make_model: MakeModel) -> None:
    directory = str(make_model())
    status, out, _ = run(capsys, "translate", "--model", directory, "--target", "eng", "--beam", "1", "Il dort.")
    assert (status, out.count("\n")) == (0, 1)
    assert run(capsys, "translate", "--model", directory, "Il dort.")[2].endswith("languages: eng, fra.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["translate", "--model", "../fr-en", "x"], "There is no model '../fr-en'."),
        (["translate", "--model", "nope", "x"], "Embedded: en-fr, fr-en"),
        (["translate", "--target", "de", "x"], "fr-en translates into en only"),
        (["translate", "--device", "nowhere", "x"], "device 'nowhere'"),
        (["translate", "--beam", "0", "x"], "'0' is not a number from 1 to 64"),
        (["translate", "--beam", "2", "--nbest", "3", "x"], "nbest"),
        (["translate"], "TEXT"),
        ([], "command"),
        (["info", "--model", "nope"], "There is no model 'nope'."),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]


def test_a_checkpoint_that_means_harm_is_refused_in_a_line(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors").symlink_to("/etc/passwd")
    for command in ("info", "translate"):
        status, out, err = run(capsys, command, "--model", str(directory), *["x"] * (command == "translate"))
        assert (status, out, "Traceback" in err) == (2, "", False)
        assert "model.safetensors: is not a checkpoint that can be read safely" in err.splitlines()[-1]


def test_info_of_a_directory_that_holds_other_things_too(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    (directory / "more").mkdir()
    (directory / "gone").symlink_to("nowhere")
    status, out, _ = run(capsys, "info", "--model", str(directory))
    assert (status, "target tokens:    >>eng<< >>fra<<" in out) == (0, True)


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "info", "--model", "fr-en")
    facts = dict(line.split(":", 1) for line in out.splitlines())
    assert status == 0
    assert facts["languages"].strip() == "fr → en"
    assert facts["parameters"].strip() == "9,917,696"
    assert facts["precision"].strip() in get_args(Precision)
    assert facts["longest sentence"].strip() == "128 tokens"


@pytest.fixture
def elsewhere(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with a tiny model at `/model`, and a new cache."""
    monkeypatch.setenv("TOLK_MODEL_CACHE", str(tmp_path / "cache"))
    with serving(Server()) as server:
        server.put(directory)
        yield server


def test_fetch_says_where_a_model_is_and_its_checksum(
    capsys: pytest.CaptureFixture[str], elsewhere: Server, directory: Path, tmp_path: Path
) -> None:
    reference = f"{elsewhere.url}/model"
    status, out, _ = run(capsys, "fetch", "--allow-host", elsewhere.host, reference)
    facts = dict(line.split(":", 1) for line in out.splitlines())
    assert status == 0
    assert facts["checksum"].strip() == str(Checksum.of(directory))
    assert facts["version"].strip() == Checksum.of(directory).version
    assert Path(facts["model"].strip()).parent == tmp_path / "cache" / "models"
    elsewhere.files.clear()
    for command in (["fetch", reference], ["fetch", facts["model"].strip()], ["info", "--model", reference]):
        status, out, _ = run(capsys, *command)
        assert (status, facts["checksum"] in out) == (0, True)
    other = ["fetch", "--cache", str(tmp_path / "other"), "--allow-host", elsewhere.host, reference]
    assert "there is no config.json" in run(capsys, *other)[2]


def test_the_environment_says_where_models_come_from(
    capsys: pytest.CaptureFixture[str], elsewhere: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["fetch", f"{elsewhere.url}/model"]
    assert "allow it with TOLK_MODEL_HOSTS or --allow-host" in run(capsys, *command)[2]
    monkeypatch.setenv("TOLK_MODEL_HOSTS", f"a.example, {elsewhere.host}")
    assert run(capsys, *command, "--checksum", f"sha256:{'0' * 64}")[0] == 2
    monkeypatch.setenv("TOLK_MODEL_CACHE_BYTES", "1000")
    assert "do not fit into" in run(capsys, *command)[2]
    monkeypatch.setenv("TOLK_MODEL_CACHE_BYTES", "1 GB")
    assert "TOLK_MODEL_CACHE_BYTES is a number of bytes, not '1 GB'" in run(capsys, *command)[2]
    monkeypatch.delenv("TOLK_MODEL_CACHE_BYTES")
    assert run(capsys, *command)[0] == 0


def test_as_a_program_it_ends_when_nobody_reads_on() -> None:
    command = [sys.executable, "-m", "models", "translate", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdin
        assert program.stdout
        assert program.stderr
        program.stdin.write(b"Il pleut.\n" * 10_000)
        program.stdin.close()
        assert program.stdout.readline() == b"It's raining.\n"
        program.stdout.close()
        assert program.stderr.read() == b""
        assert program.wait(60) == 0
