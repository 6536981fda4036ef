"""Both pages while models are added and removed, with a web tier that echoes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

ENTRY = '[models.{0}-{1}]\nreference = "fr-en"\npairs = [{{ source = "{0}", target = "{1}" }}]\n'

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "models.toml"
    path.write_text(ENTRY.format("fr", "en"))
    return path


@pytest.fixture(scope="module")
def url(start_web: Callable[..., str], models: Path) -> str:
    one = "--workers=1"  # a second process might answer with models.toml as it was a second before
    return start_web("", TOLK_TRANSLATOR="echo", TOLK_MODELS=str(models), GUNICORN_CMD_ARGS=one)


@pytest.fixture
def offer(url: str, models: Path, eventually: Callable[..., None]) -> Callable[..., None]:
    """Writes models for these pairs into models.toml, and returns when the service offers them."""

    def write(*pairs: tuple[str, str]) -> None:
        def known() -> bool:
            answer = requests.post(f"{url}/graphql", json={"query": "{ models { source target } }"}, timeout=10)
            return [(each["source"], each["target"]) for each in answer.json()["data"]["models"]] == [*pairs]

        models.write_text("".join(ENTRY.format(*pair) for pair in pairs))
        eventually(known)

    return write


def chosen(page: Page) -> tuple[str, str]:
    return page.input_value("#source"), page.input_value("#target")


def come_back(page: Page) -> None:
    """As from another tab."""
    with page.expect_response("**/graphql"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_who_comes_back_finds_the_languages_that_there_are_now(
    url: str, open_page: Open, offer: Callable[..., None]
) -> None:
    offer(("fr", "en"), ("en", "de"))
    page = open_page(url)
    options = page.locator("#target option")
    expect(options).to_have_text(["English", "German"])  # through English
    page.select_option("#target", "de")
    offer(("fr", "en"), ("en", "de"), ("en", "fi"))
    come_back(page)
    expect(options).to_have_text(["English", "German", "Finnish"])
    assert chosen(page) == ("fr", "de")
    page.fill("#text", "Bonjour.")
    expect(page.locator("#output")).to_have_attribute("lang", "de")
    offer(("sv", "fi"), ("fi", "sv"))
    with page.expect_request(lambda request: "mutation" in (request.post_data or "")) as sent:
        come_back(page)
    assert chosen(page) == ("sv", "fi")
    assert sent.value.post_data_json["variables"]["input"]["source"] == "sv"
    expect(page.locator("#output")).to_have_attribute("lang", "fi")


def test_who_asks_for_languages_that_are_gone_finds_the_others(
    url: str, open_page: Open, offer: Callable[..., None]
) -> None:
    offer(("fr", "en"))
    page = open_page(url)
    offer(("fr", "de"))
    page.fill("#text", "Bonjour.")
    expect(page.locator("#target option")).to_have_text(["German"])
    expect(page.locator("#output")).to_have_attribute("lang", "de")
    expect(page.locator("#output")).to_have_text("Bonjour.")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_languages_that_no_worker_takes_are_told(
    url: str, open_page: Open, offer: Callable[..., None], check_access: Callable[[Page], None]
) -> None:
    offer(("fr", "en"))
    page = open_page(url)
    hint = page.get_by_text("No worker translates these languages at the moment.")
    expect(hint).to_be_hidden()
    languages = [{"source": "fr", "target": "en", "available": False}]
    page.route("**/graphql", lambda route: route.fulfill(json={"data": {"languages": languages}}), times=1)
    come_back(page)
    expect(hint).to_be_visible()
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 640})
        check_access(page)
    page.fill("#text", "Bonjour.")
    expect(page.locator("#output")).to_have_text("Bonjour.")
    expect(hint).to_be_hidden()


def queues(*depths: int, workers: int = 2) -> list[dict[str, int]]:
    return [{"depth": depth, "workers": workers} for depth in depths]


def model(name: str, warm: bool, *depths: int) -> dict[str, Any]:
    return {"name": name, "warm": warm, "pairs": [{"source": "fr", "target": "en"}], "queues": queues(*depths)}


def test_of_a_thousand_models_the_status_shows_those_in_memory(
    url: str, open_page: Open, check_access: Callable[[Page], None]
) -> None:
    loaded = {"gpu0": ["hot", "a"], "gpu1": ["hot", "a", "b"], "gpu2": ["hot"], "gpu3": ["hot"], "gpu4": ["hot"]}
    status = {
        "broker": True,
        "deadLetters": 0,
        "jobWorkers": 1,
        "models": [model("hot", True, 3, 20, 1), model("a", False), model("b", False)],
        "onDemand": {"models": 1000, "queues": queues(16, 0, 0)},
        "workers": [
            {
                "name": f"{name}@h",
                "models": [{"name": each, "version": "0123456789ab", "device": "cuda:0"} for each in names],
                "active": 0,
                "processed": 1000,
                "uptime": 7200,
                "memory": 1_700_000_000,
                "gpuMemory": 4_200_000_000,
            }
            for name, names in loaded.items()
        ],
        "errors": [],
    }
    page = open_page("about:blank", viewport={"width": 1280, "height": 900})
    page.route("**/graphql", lambda route: route.fulfill(body=json.dumps({"data": {"status": status}})))
    page.goto(f"{url}/status")
    expect(page.get_by_role("table", name="Models").locator("tbody tr")).to_have_text([
        "hotfr → en, warm, in memory of gpu0@h, gpu1@h, gpu2@h, and 2 more243 interactive, 20 bulk, 1 suspect2",
        "On demand2 of 1,000 in memory; they share their queues1616 interactive2",
        "afr → en, on demand, in memory of gpu0@h and gpu1@h–2",
        "bfr → en, on demand, in memory of gpu1@h–1",
    ])  # fmt: skip
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 900})
        check_access(page)
