from __future__ import annotations

import io
import logging
import sys

import pytest

from models.store.progress import EVERY, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("hf:a/b", 4_000_000) as progress:
        for done in (1_000_000, 500_000, 4_000_000):  # a download that starts again goes back
            progress.report("a", done)
    assert "hf:a/b: 100%" in sys.stderr.getvalue()
    assert "4.00M/4.00M" in sys.stderr.getvalue()


def test_lines_in_the_log_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    with Progress("hf:a/b", 4_000_000, clock=lambda: now) as progress:
        now += EVERY
        progress.report("a", 1_000_000)
        now += 0.9 * EVERY
        progress.report("a", 2_000_000)
        progress.report("b", 2_000_000)
    first, second, last = caplog.messages
    assert (first, second) == ("fetching hf:a/b, 4.0 MB", "hf:a/b: 1.0 of 4.0 MB")
    assert last.startswith("fetched hf:a/b, 4.0 MB in ")


def test_a_download_that_failed_is_not_said_to_be_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(ConnectionError), Progress("hf:a/b", 4_000_000):
        raise ConnectionError
    assert caplog.messages == ["fetching hf:a/b, 4.0 MB"]
