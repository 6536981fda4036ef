from __future__ import annotations

import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from contextvars import Context

import pytest

from telemetry import logs


@pytest.fixture(autouse=True)
def nothing() -> Iterator[None]:
    """Clears the id of the request, and restores the root logger after the test."""
    token = logs.request_id.set(None)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.request_id.reset(token)


def test_a_line_of_json_has_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(logs.config("json", "info", {"tests.quiet": "warning"}))

    def work() -> None:
        logs.request_id.set("r1")
        logging.getLogger("tests.one").info("asked\nfor %s", "it", extra={"fields": {"texts": 2, "ms": 1.5}})
        logging.getLogger("tests.quiet").info("nothing")
        logging.getLogger("tests.one").debug("nothing")

    Context().run(work)
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("tests.two").exception("failed")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    time = first.pop("time")
    assert (len(time), time[-1]) == (len("2026-11-25T21:00:00.123Z"), "Z")
    assert first == {
        "level": "info",
        "logger": "tests.one",
        "message": "asked\nfor it",
        "request_id": "r1",
        "texts": 2,
        "ms": 1.5,
    }
    assert "request_id" not in second
    assert second["exception"].splitlines()[-1] == "ValueError: wrong"


def test_a_line_of_text_is_to_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(logs.config("text", "debug", {}))

    def work() -> None:
        logs.request_id.set("r1")
        logging.getLogger("tests").debug("asked", extra={"fields": {"texts": 2}})

    Context().run(work)
    logging.getLogger("tests").info("over")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(" DEBUG tests: asked texts=2 [r1]")
    assert second.endswith(" INFO tests: over")


@pytest.mark.parametrize(("is_a_terminal", "form"), [(True, "text"), (False, "json")])
def test_text_is_for_who_reads_along(monkeypatch: pytest.MonkeyPatch, is_a_terminal: bool, form: str) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_a_terminal)
    assert logs.default_form() == form


@pytest.mark.parametrize("sent", ["\n2026-01-01 00:00:00,000 INFO tests: forged", "\r", "\x1b[2J", "\x85", "\u2028"])
def test_no_text_makes_a_line_of_its_own_or_commands_a_terminal(capsys: pytest.CaptureFixture[str], sent: str) -> None:
    logging.config.dictConfig(logs.config("text", "info", {}))
    logging.getLogger("tests").info("Task [%s] received", sent, extra={"fields": {"model": sent}})
    written = capsys.readouterr().err
    assert all(line.startswith("  ") for line in written.splitlines()[1:])
    assert written.replace("\n", "").isprintable()
