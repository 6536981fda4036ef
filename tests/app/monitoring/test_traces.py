from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import pytest
from flask import Flask

from app import create_app
from app.monitoring.traces import Traces
from app.settings import Settings
from app.translation.translator import EchoTranslator
from telemetry.tracing import Span

ID = str(uuid4())


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def test_a_trace_is_found_by_the_id_of_its_request(tmp_path: Path) -> None:
    kept = Traces(tmp_path / "traces")
    for number in range(5):
        kept.keep(f"{number}-{ID}", Span(f"GET /{number}", float(number)))
    kept.keep(f"3-{ID}", Span("GET /again", 0.5))  # the clock may have been set
    assert [trace.name for trace in kept.find(f"3-{ID}")] == ["GET /again", "GET /3"]
    assert kept.find(ID) == []
    assert Traces(tmp_path / "nowhere").find(ID) == []


def test_only_their_owner_reads_traces(tmp_path: Path) -> None:
    kept = Traces(tmp_path / "traces")
    kept.keep(ID, Span("GET /", 1.0))
    [file] = files(tmp_path / "traces")
    assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_the_oldest_go(tmp_path: Path) -> None:
    one, other = (Traces(tmp_path, file_bytes=1_000, all_bytes=4_000) for _ in range(2))  # as of two processes
    for number in range(200):
        (one if number % 2 else other).keep(f"{number:03}-{ID}", Span("GET /", float(number)))
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 4_000
    found = [number for number in range(200) if one.find(f"{number:03}-{ID}")]
    assert found[-12:] == list(range(188, 200))
    assert len(found) < 50


def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    kept = Traces(tmp_path)
    kept.keep("first", Span("GET /", 1.0))
    [file] = files(tmp_path)
    file.unlink()
    kept.keep("second", Span("GET /", 2.0))
    assert len(kept.find("second")) == 1


def test_half_a_line_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, write = Traces(tmp_path), os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:20]))
    kept.keep("first", Span("GET /", 1.0))
    monkeypatch.undo()
    kept.keep("second", Span("GET /", 2.0))
    assert (len(kept.find("first")), len(kept.find("second"))) == (0, 1)


def test_processes_that_remove_the_same_files_go_on(tmp_path: Path) -> None:
    (tmp_path / "gone-1.jsonl").symlink_to("nowhere")  # a name without a file, as if it were removed now
    kept = Traces(tmp_path, all_bytes=0)
    kept.keep(ID, Span("GET /", 1.0))
    Traces(tmp_path, all_bytes=0).keep("again", Span("GET /", 2.0))
    assert (len(kept.find(ID)), len(kept.find("again"))) == (0, 1)


def test_what_is_no_trace_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = Traces(tmp_path)
    kept.keep(ID, Span("GET /", 1.0))
    [file] = files(tmp_path)
    with file.open("a") as output:
        output.write(f'["{ID}", []]\n["{ID}", ["na')
    assert len(kept.find(ID)) == 1
    assert len(caplog.records) == 2


def test_a_disk_that_takes_nothing_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "traces").write_text("a file")
    kept = Traces(tmp_path / "traces")
    for _ in range(3):
        kept.keep(ID, Span("GET /", 1.0))
    [record] = caplog.records
    assert record.getMessage().startswith("No traces are kept for 60 s: ")


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return create_app(Settings(traces=tmp_path), EchoTranslator())


def test_the_command_shows_the_tree(app: Flask, tmp_path: Path) -> None:
    kept = Traces(tmp_path)
    trace = Span("POST /graphql", 1_000.0, 0.0125, {"status": 200, "model": "fr-en"})
    trace.children = [Span("translate", 1_000.002, 0.01, {"worker": "w1"}, [Span("decode", 1_000.004, 0.003)])]
    kept.keep(ID, trace)
    result = app.test_cli_runner().invoke(args=["trace", ID.upper()])
    assert result.output.splitlines() == [
        "1970-01-01 00:16:40 UTC, status=200 model=fr-en",
        "   start ms  took ms",
        "        0.0     12.5  POST /graphql",
        "        2.0     10.0    translate  worker=w1",
        "        4.0      3.0      decode",
    ]
    result = app.test_cli_runner().invoke(args=["trace", ID, "--json"])
    assert json.loads(result.output) == asdict(trace)


def test_the_command_says_what_it_lacks(app: Flask) -> None:
    result = app.test_cli_runner().invoke(args=["trace", ID])
    assert (result.exit_code, result.output) == (
        1,
        f"Error: There is no trace of {ID} here: it is too old, or another host's.\n",
    )
    assert app.test_cli_runner().invoke(args=["trace", "secret"]).exit_code == 2
    without = create_app(Settings(), EchoTranslator())
    result = without.test_cli_runner().invoke(args=["trace", ID])
    assert (result.exit_code, result.output) == (1, "Error: No traces are kept: TOLK_TRACES is off.\n")


def test_the_command_says_who_may_read_traces(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Traces(tmp_path).keep(ID, Span("GET /", 1.0))
    [file] = files(tmp_path)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    result = app.test_cli_runner().invoke(args=["trace", ID])
    said = f"Error: {file}: only the user who runs the web tier may read it.\n"
    assert (result.exit_code, result.output) == (1, said)
