"""Both pages with the whole service, whose worker and broker are stopped and started again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from launch.rabbitmq import PrivateRabbitMQ

pytestmark = [pytest.mark.browser, pytest.mark.broker]

RECOVERY = 60_000  # milliseconds, in which a request may fail and be sent again

WAYS = {"fr-en": "fr → en", "en-fr": "en → fr"}
WAITS = ("11 interactive", "0")  # a model's requests in flight, and in its queues

Open = Callable[..., Page]


@dataclass
class Stage:
    """The parts of the service that tests stop and start again."""

    broker: PrivateRabbitMQ
    worker: Any
    url: str


@pytest.fixture(scope="module")
def stage(new_broker: Callable[[], PrivateRabbitMQ], start_worker, start_web: Callable[..., str]) -> Iterator[Stage]:
    with new_broker() as broker:
        yield Stage(broker, start_worker(broker.url), start_web(broker.url))


@pytest.fixture
def page(stage: Stage, open_page: Open) -> Page:
    return open_page(stage.url)


@pytest.fixture
def status(stage: Stage, open_page: Open) -> Page:
    return open_page(f"{stage.url}/status", viewport={"width": 1280, "height": 900})


def rows(page: Page, caption: str):
    return page.get_by_role("table", name=caption).locator("tbody tr")


def test_a_sentence_is_translated_and_the_doubtful_one_marked(page: Page) -> None:
    page.fill("#text", "Je vais dormir. Il aime 龘.\n\nMerci.")
    expect(page.locator("#output")).to_contain_text("sleep")
    mark = page.locator("#output mark")
    expect(mark).to_have_count(1)
    expect(mark).not_to_contain_text("sleep")
    expect(mark).to_have_accessible_description(re.compile("does not know"))
    assert page.inner_text("#output").count("\n\n") == 1


def test_languages_and_texts_are_swapped(page: Page) -> None:
    page.fill("#text", "Je vais dormir.")
    expect(page.locator("#output")).to_contain_text("sleep")
    page.get_by_role("button", name="Swap the languages").click()
    expect(page.locator("#text")).to_have_value(re.compile("sleep"))
    expect(page.locator("#output")).to_contain_text("dormir")


def test_the_status_is_there_and_everybody_can_read_it(
    stage: Stage, status: Page, check_access: Callable[[Page], None]
) -> None:
    expect(rows(status, "Models")).to_have_text(
        [re.compile(rf"^{name}{way}, warm, in memory of \d+@\S+01$") for name, way in WAYS.items()]
    )
    expect(rows(status, "Workers")).to_contain_text(re.compile(r"fr-en \(\w+\) on cpu.* MB"))
    expect(status.get_by_text("No error in the last hour.")).to_be_visible()
    expect(status.locator("#letters")).to_have_text("0")
    expect(status.locator("#job-workers")).to_have_text("0")
    mutation = 'mutation { translate(input: {texts: ["Un."], target: "en", timeout: 1e-9}) { model } }'
    answer = requests.post(f"{stage.url}/graphql", json={"query": mutation}, timeout=10)
    expect(rows(status, "Errors of the last hour")).to_contain_text(f"TIMEOUT{answer.headers['X-Request-Id']}1")
    for width in (1280, 360):
        for scheme in ("light", "dark"):
            status.set_viewport_size({"width": width, "height": 900})
            status.emulate_media(color_scheme=scheme)
            check_access(status)


def test_the_status_is_asked_for_while_somebody_looks(stage: Stage, open_page: Open) -> None:
    page = open_page("about:blank")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/graphql") else None)
    page.clock.install()
    with page.expect_response("**/graphql"):
        page.goto(f"{stage.url}/status")
    look(page, "hidden")
    page.clock.fast_forward(60_000)
    assert len(asked) == 1
    for time in range(2):
        with page.expect_response("**/graphql"):
            look(page, "visible") if time == 0 else page.clock.fast_forward(3_000)
    assert len(asked) == 3


def look(page: Page, visibility: str) -> None:
    page.evaluate(
        """(visibility) => {
          Object.defineProperty(document, "visibilityState", { value: visibility, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        visibility,
    )


def test_the_status_page_says_when_the_service_does_not_answer(status: Page) -> None:
    expect(rows(status, "Workers")).to_have_count(1)
    status.clock.install()
    alert = status.get_by_role("alert")
    status.context.set_offline(True)
    status.clock.fast_forward(3_000)
    expect(alert).to_contain_text("cannot be reached")
    expect(rows(status, "Workers")).to_have_count(1)
    status.context.set_offline(False)
    status.clock.fast_forward(3_000)
    expect(alert).to_be_hidden()


def test_without_a_worker_a_text_waits_for_the_next_one(
    stage: Stage, page: Page, status: Page, start_worker, check_access: Callable[[Page], None]
) -> None:
    stage.worker.stop()
    page.fill("#text", "Merci.")
    expect(status.get_by_text("There are no workers. Start one: celery -A tasks worker")).to_be_visible()
    expect(rows(status, "Models")).to_have_text(
        [f"{name}{way}, warm, in no memory{waits}0" for (name, way), waits in zip(WAYS.items(), WAITS, strict=True)]
    )
    check_access(status)
    stage.worker = start_worker(stage.broker.url)
    expect(page.locator("#output")).to_have_text("Thank you.", timeout=RECOVERY)
    expect(rows(status, "Workers")).to_have_count(1)


def test_without_a_broker_a_text_waits_for_it(
    stage: Stage, page: Page, status: Page, check_access: Callable[[Page], None]
) -> None:
    stage.broker.kill()
    page.fill("#text", "Je vais dormir.")
    alert = status.get_by_role("alert")
    expect(alert).to_contain_text("The message broker does not answer.")
    check_access(status)
    stage.broker.start()
    expect(page.locator("#output")).to_contain_text("sleep", timeout=RECOVERY)
    expect(page.locator("#text")).to_have_value("Je vais dormir.")
    expect(alert).to_be_hidden()
