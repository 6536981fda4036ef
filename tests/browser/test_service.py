"""Both pages in front of the whole service, whose worker and broker go away and come back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import requests
from playwright.sync_api import Page, expect

from launch.rabbitmq import PrivateRabbitMQ

pytestmark = [pytest.mark.browser, pytest.mark.broker]

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def stage(new_broker: Callable[[], PrivateRabbitMQ]) -> Iterator[PrivateRabbitMQ]:
    with new_broker() as running:
        yield running


def rows(page: Page, caption: str):
    return page.get_by_role("table", name=caption).locator("tbody tr")


def test_the_pages_say_what_happens_from_the_first_worker_to_the_loss_of_the_broker(
    stage: PrivateRabbitMQ,
    start_worker,
    start_web: Callable[[str], str],
    open_page: Open,
    check_access: Callable[[Page], None],
) -> None:
    worker = start_worker(stage.url)
    url = start_web(stage.url)
    page = open_page(url, viewport={"width": 1280, "height": 900})
    status = open_page(f"{url}/status", viewport={"width": 1280, "height": 900})

    # Everything is there.
    page.fill("#text", "Je vais dormir. Il aime 龘.\n\nMerci.")
    expect(page.locator("#output")).to_contain_text("sleep")
    expect(page.locator("#output mark")).to_have_count(1)
    expect(page.locator("#output mark")).not_to_contain_text("sleep")
    expect(page.locator("#output mark")).to_have_accessible_description(re.compile("does not know"))
    assert page.inner_text("#output").count("\n\n") == 1
    models, workers, errors = (rows(status, name) for name in ("Models", "Workers", "Errors of the last hour"))
    expect(models.nth(0)).to_have_text("fr-enfr → entranslate.fr-en01")
    expect(workers).to_have_count(1)
    expect(workers.locator("td").nth(1)).to_have_text("1")
    expect(workers).to_contain_text("fr-en")
    expect(status.get_by_text("No error in the last hour.")).to_be_visible()
    expect(status.locator("#letters")).to_have_text("0")

    # An error.
    mutation = 'mutation { translate(input: {texts: ["Un."], target: "xx"}) { model } }'
    answer = requests.post(f"{url}/graphql", json={"query": mutation}, timeout=10)
    expect(errors).to_have_count(1)
    expect(errors).to_contain_text(f"UNKNOWN_MODEL{answer.headers['X-Request-Id']}")
    for width in (1280, 360):
        for scheme in ("light", "dark"):
            status.set_viewport_size({"width": width, "height": 900})
            status.emulate_media(color_scheme=scheme)
            check_access(status)

    # The worker goes: what is typed waits for another one.
    worker.stop()
    expect(status.get_by_text("No worker. Start one: celery -A tasks worker")).to_be_visible()
    page.fill("#text", "Merci.")
    expect(models.nth(0)).to_have_text("fr-enfr → entranslate.fr-en10")
    check_access(status)
    start_worker(stage.url)
    expect(page.locator("#output")).to_have_text("Thank you.")
    expect(workers).to_have_count(1)

    # The broker goes.
    stage.kill()
    expect(status.get_by_role("alert")).to_contain_text("The message broker does not answer.")
    page.fill("#text", "Je vais dormir.")
    check_access(status)
    stage.start()
    expect(page.locator("#output")).to_contain_text("sleep")
    expect(status.get_by_role("alert")).to_be_hidden()

    # The web tier cannot be reached.
    status.context.set_offline(True)
    expect(status.get_by_role("alert")).to_contain_text("cannot be reached")
    status.context.set_offline(False)
    expect(status.get_by_role("alert")).to_be_hidden()
