"""The documentation: its files, headings and links exist, and the example program of the README runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
FENCED = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
OPERATORS = {"compose/tolk.env", "compose/prometheus/targets/gpus.yml"}  # files that operators create
FILE = re.compile(r"`((?:app|tasks|models|text|telemetry|launch|compose|tests|benchmarks)/[\w./-]*)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    broken = [link for link, target, heading in links(page) if not (target.exists() and found(target, heading))]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_in_the_repository_is_there(page: Path) -> None:
    named = set(FILE.findall(page.read_text(encoding="utf-8"))) - OPERATORS
    assert sorted(path for path in named if not (REPOSITORY / path).exists()) == []


def test_the_readmes_program_translates(start_web: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    [program] = [code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "idempotencyKey" in code]
    web = start_web("", TOLK_TRANSLATOR="echo", DATABASE_URL="sqlite://")
    exec(program.replace("http://127.0.0.1:8000", web), {})
    assert capsys.readouterr().out == "['Je vais dormir.', 'Il pleut.']\n"


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Each link of a page, its file, and the heading that it names, if any."""
    for match in LINK.finditer(FENCED.sub("", page.read_text(encoding="utf-8"))):
        yield match.group(), page.parent / match[1] if match[1] else page, match[2] or ""


def found(page: Path, heading: str) -> bool:
    """Whether a page has a heading with this anchor, which is formed as GitHub forms it."""
    if not heading:
        return True
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return heading in {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
