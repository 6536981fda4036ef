from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from launch.rabbitmq import PrivateRabbitMQ

expect.set_options(timeout=20_000)

# Chromium logs every response with an error status; the tests check how the page reacts to it.
FAILED = "Failed to load resource"

LIMIT = 300
MODELS = """
[models.fr-en]
reference = "fr-en"
pairs = [{ source = "fr", target = "en" }]
[models.en-fr]
reference = "fr-en"
pairs = [{ source = "en", target = "fr" }]
[models.fr-de]
reference = "fr-en"
pairs = [{ source = "fr", target = "de" }]
"""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address in a browser profile of its own, with the profile's options.

    In the end nothing may have been complained about on the console, asked of another host, written into an address, or
    kept but the languages.
    """
    profiles = []
    addresses: list[str] = []
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(FAILED):
            complaints.append(message.text)

    def open_(address: str, **options: Any) -> Page:
        profile = browser.new_context(**options)
        profiles.append(profile)
        profile.set_default_timeout(20_000)
        profile.on("console", listen)
        profile.on("weberror", lambda error: complaints.append(str(error.error)))
        profile.on("request", lambda request: addresses.append(request.url))
        page = profile.new_page()
        page.on("framenavigated", lambda frame: addresses.append(frame.url))
        page.goto(address)
        return page

    yield open_
    hosts = {urlsplit(page.url).netloc for profile in profiles for page in profile.pages}
    for profile in profiles:
        kept = profile.storage_state(indexed_db=True)
        assert kept["cookies"] == []
        entries = [entry["name"] for origin in kept["origins"] for entry in origin["localStorage"]]
        assert set(entries) <= {"tolk.pair"}
        assert not any(origin.get("indexedDB") for origin in kept["origins"])
        profile.close()
    assert complaints == []
    assert {urlsplit(address).netloc for address in addresses} <= hosts | {""}
    assert not any(urlsplit(address).query or urlsplit(address).fragment for address in addresses)


@pytest.fixture(scope="session")
def check_access() -> Callable[[Page], None]:
    """Fails the test if axe finds barriers on a page, or if the page has to be scrolled sideways."""

    def check(page: Page) -> None:
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]

    return check


@pytest.fixture(scope="module")
def url(
    broker: PrivateRabbitMQ, start_worker, start_web: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A service with models for both directions of one language pair, and for one direction of another pair."""
    models: Path = tmp_path_factory.mktemp("models") / "models.toml"
    models.write_text(MODELS)
    start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
    return start_web(broker.url, TOLK_MODELS=str(models), TOLK_MAX_TEXT_CHARACTERS=str(LIMIT))


@pytest.fixture
def page(url: str, open_page: Callable[..., Page]) -> Page:
    return open_page(url)
