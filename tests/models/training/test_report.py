"""The page and the card that a run leaves, and the command that makes them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models.__main__ import main
from models.training.report import Curve, chart, write_report
from tests.models.training.conftest import SETTINGS

if TYPE_CHECKING:
    from tests.models.training.conftest import Configure


class Outline(HTMLParser):
    """How often each element begins, and what is fetched from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found[tag] = self.found.get(tag, 0) + 1
        self.fetched += [value or "" for name, value in attributes if name in ("src", "href")]


def test_the_page(trained: Path) -> None:
    outline = Outline((trained / "model" / "report.html").read_text(encoding="utf-8"))
    assert outline.fetched == []
    assert outline.found["svg"] == 4  # loss, BLEU, chrF, speed
    assert outline.found["details"] == 2  # measured twice
    assert outline.found["dl"] == 2 * 10
    assert outline.found["polyline"] == 2 + 1 + 1 + 1


def test_the_card(trained: Path) -> None:
    card = (trained / "model" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# tiny: fr → en\n")
    assert "| made up | 570 | 1 | CC0 | nobody |" in card
    assert "30 pairs were refused because they share a side with a held-out set." in card
    assert "| dev | " in card


def test_a_page_before_anything_was_measured(configure: Configure, tmp_path: Path) -> None:
    write_report(configure(), tmp_path / "history.jsonl", tmp_path / "report.html")
    assert "Nothing yet." in (tmp_path / "report.html").read_text(encoding="utf-8")
    history = '{"step": 5, "loss": 2.0, "tokens_per_second": 100}\n'
    (tmp_path / "history.jsonl").write_text(history)
    write_report(configure(), tmp_path / "history.jsonl", tmp_path / "report.html")
    assert Outline((tmp_path / "report.html").read_text(encoding="utf-8")).found["polyline"] == 2


def test_names_in_a_chart_are_escaped() -> None:
    assert "&lt;b&gt;" in chart([Curve("<b>", [(0, 1.0), (10, 1.0)])])


def test_the_command(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = tmp_path / "tiny.toml"
    settings.write_text(SETTINGS.replace("landing = 10", "landing = 1"), encoding="utf-8")
    arguments = ["train", str(settings), "--data", str(corpus), "--steps", "1"]
    assert main(arguments) == 0
    run = tmp_path / "cache" / "tolk" / "training" / "tiny"
    assert capsys.readouterr().out.startswith(f"model:   {run / 'model'}\n")
    assert (run / "model" / "model.safetensors").exists()
    assert main([*arguments[:2], "--data", str(tmp_path)]) == 2
    assert "dev.tsv: cannot be read" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "none.toml")]) == 2
