"""The page of jobs with the whole service; the worker returns every text as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, Request, Route, expect

from launch.rabbitmq import PrivateRabbitMQ
from tests.browser.conftest import MODELS

pytestmark = [pytest.mark.browser, pytest.mark.broker]

Open = Callable[..., Page]

# Its first texts show within a second how far it is, and its last ones leave time to cancel it.
SLOW = "".join(f"#sleep {seconds}\n" * 500 for seconds in (0.01, 0.02, 0.05, 0.5))
RUNNING = re.compile(r"Running: [1-9][\d,]* of 2,000 texts")
CUT = """
window.cut = new AbortController();
const original = window.fetch;
window.fetch = (address, options) =>
  original(address, options?.headers?.Accept ? { ...options, signal: cut.signal } : options);
"""


STATUS = "{ status { workers { active } models { queues { depth } } } }"


@pytest.fixture(scope="module")
def url(
    broker: PrivateRabbitMQ,
    start_worker: Callable[..., Any],
    start_web: Callable[..., str],
    spawn: Callable[..., Any],
    eventually: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A service that does jobs. In the end all its work was done, or dropped because its job was cancelled."""
    directory = tmp_path_factory.mktemp("jobs")
    models = Path(directory, "models.toml")
    models.write_text(MODELS)
    environ = {"TOLK_MODELS": str(models), "DATABASE_URL": f"sqlite:///{directory}/tolk.sqlite"}
    start_worker(broker.url, app="echo", TOLK_MODELS=str(models))
    url = start_web(broker.url, **environ)
    results = spawn("celery", "-A", "app.jobs.results", "worker", CELERY_BROKER_URL=broker.url, **environ)
    eventually(lambda: results.says(" ready."), 60)
    yield url
    eventually(lambda: is_idle(url))


def is_idle(url: str) -> bool:
    answer = requests.post(f"{url}/graphql", json={"query": STATUS}, timeout=10)
    status = answer.json()["data"]["status"]
    busy = any(worker["active"] for worker in status["workers"])
    return not busy and not any(queue["depth"] for model in status["models"] for queue in model["queues"])


@pytest.fixture
def page(url: str, open_page: Open) -> Page:
    return open_page(f"{url}/jobs", viewport={"width": 1280, "height": 900})


def newest(page: Page):
    return page.locator("#jobs tr").first


def is_list(request: Request) -> bool:
    return "query Jobs" in (request.post_data or "")


def is_subscription(request: Request) -> bool:
    return request.headers.get("accept") == "text/event-stream"


def submit(page: Page, text: str) -> None:
    page.select_option("#source", "fr")
    page.select_option("#target", "en")
    if text == SLOW:  # a browser takes seconds to have so many lines typed
        page.set_input_files("#file", {"name": "slow.txt", "mimeType": "text/plain", "buffer": text.encode()})
    else:
        page.fill("#lines", text)
    with page.expect_response(lambda response: "mutation Submit" in (response.request.post_data or "")) as answer:
        page.get_by_role("button", name="Submit").click()
    expect(newest(page)).to_have_id(f"job-{answer.value.json()['data']['submitTranslation']['id']}")


def downloaded(page: Page, form: str) -> str:
    with page.expect_download() as download:
        newest(page).get_by_role("link", name=form).click()
    return Path(download.value.path()).read_text("utf-8")


def test_pasted_lines_become_a_job_that_can_be_downloaded(page: Page, check_access: Callable[[Page], None]) -> None:
    submit(page, "Un.\n\n  Deux. 😀\n=SUM(1)\n")
    expect(page.locator("#outcome")).to_have_text("Submitted 4 texts.")
    expect(page.locator("#lines")).to_have_value("")
    job = newest(page)
    expect(job).to_contain_text("Done: 4 of 4 texts")
    expect(job).to_contain_text("French → English")
    expect(job).to_contain_text("deleted on")
    expect(job.get_by_role("progressbar")).to_have_attribute("value", "4")
    expect(job.get_by_role("button")).to_have_text(["Delete"])
    found = [json.loads(line) for line in downloaded(page, "NDJSON").splitlines()]
    assert [line["text"] for line in found] == ["Un.", "", "  Deux. 😀", "=SUM(1)"]
    rows = downloaded(page, "TSV").splitlines()
    assert len(rows) == 5
    assert rows[1].split("\t")[:2] == ["Un.", "Un."]
    assert rows[4].split("\t")[:2] == ["=SUM(1)", "=SUM(1)"]
    for width in (1280, 360):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            check_access(page)


def test_a_long_file_goes_in_several_calls_and_in_order(page: Page, tmp_path: Path) -> None:
    lines = [f"Ligne {number}." for number in range(4_500)]
    file = tmp_path / "lines.txt"
    file.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", "utf-8", newline="")
    calls: list[dict[str, Any]] = []
    page.on("request", lambda request: calls.append(request.post_data_json) if "/graphql" in request.url else None)
    page.set_input_files("#file", file)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#outcome")).to_have_text("Submitted 4,500 texts.")
    assert [call["variables"]["offset"] for call in calls if "offset" in call["variables"]] == [2_000, 4_000]
    expect(newest(page)).to_contain_text("Done: 4,500 of 4,500 texts", timeout=60_000)
    assert [json.loads(line)["text"] for line in downloaded(page, "NDJSON").splitlines()] == lines


def test_a_running_job_is_listened_to_and_can_be_cancelled_and_retried(page: Page) -> None:
    """While the page listens, it does not need the list."""
    submit(page, SLOW)
    job = newest(page)
    expect(job).to_contain_text(RUNNING)
    page.route("**/graphql", lambda route: route.abort() if is_list(route.request) else route.fallback())
    expect(job).to_contain_text("left")
    job.get_by_role("button", name="Cancel").click()
    expect(job).to_contain_text("Cancelled")
    expect(job.get_by_role("button", name="Cancel")).to_be_hidden()
    page.unroute("**/graphql")
    job.get_by_role("button", name="Retry what failed").click()
    expect(job).to_contain_text(re.compile("Waiting|Running"))
    job.get_by_role("button", name="Cancel").click()
    expect(job).to_contain_text("Cancelled")


def test_a_stream_that_breaks_is_replaced_by_the_list(page: Page) -> None:
    page.add_init_script(CUT)
    page.reload()
    with page.expect_request(is_subscription):
        submit(page, SLOW)
    job = newest(page)
    expect(job).to_contain_text(RUNNING)
    page.evaluate("cut.abort()")
    for _ in range(2):
        state = job.locator(".state").inner_text()
        with page.expect_request(is_list):
            pass
    expect(job.locator(".state")).not_to_have_text(state)
    job.get_by_role("button", name="Cancel").click()
    expect(job).to_contain_text("Cancelled")


def test_two_of_many_running_jobs_are_listened_to(page: Page) -> None:
    """A browser has six connections to a service, for all its tabs."""
    job = {"status": "RUNNING", "target": "en", "createdAt": "2026-11-30T07:00:00Z"}
    job |= {"progress": {"done": 1, "total": 3, "failed": 0}}
    jobs = {"edges": [{"node": job | {"id": str(number)}} for number in range(200)], "pageInfo": {"hasNextPage": False}}
    heard: list[str] = []

    def answer(route: Route) -> None:
        if is_subscription(route.request):
            heard.append(route.request.post_data_json["variables"]["id"])
        else:
            route.fulfill(json={"data": {"jobs": jobs}})

    page.route("**/graphql", answer)
    page.reload()
    with page.expect_request(is_list):
        expect(page.locator("#jobs tr")).to_have_count(200)
    assert heard == ["0", "1"]


def test_a_job_is_deleted_once_that_was_confirmed(page: Page, check_access: Callable[[Page], None]) -> None:
    for text in ("Un.", SLOW):
        submit(page, text)
    name = newest(page).get_attribute("id")
    job = page.locator(f"#{name}")
    delete = job.get_by_role("button", name="Delete")
    delete.click()
    dialog = page.get_by_role("dialog", name="Delete the job French → English of")
    check_access(page)
    dialog.get_by_role("button", name="Keep it").click()
    expect(delete).to_be_focused()
    delete.click()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    delete.click()
    dialog.get_by_role("button", name="Delete it").click()
    expect(page.locator("#outcome")).to_have_text("The job is deleted.")
    expect(page.locator(f"#{name}")).to_have_count(0)
    expect(newest(page).get_by_role("button", name="Delete")).to_be_focused()
    page.reload()
    expect(newest(page)).to_contain_text("1 of 1 texts")
    expect(page.locator(f"#{name}")).to_have_count(0)


def test_a_failed_text_is_told_and_only_that_is_retried(page: Page) -> None:
    submit(page, "Un.\n#bad\nTrois.")
    job = newest(page)
    expect(job).to_contain_text("Done, with errors: 3 of 3 texts")
    expect(job).to_contain_text("1 of 3 texts have no translation")
    rows = downloaded(page, "TSV").splitlines()
    assert ["BAD_INPUT" in row for row in rows] == [False, False, True, False]
    with page.expect_response("**/graphql") as answer:
        job.get_by_role("button", name="Retry what failed").click()
    assert answer.value.json()["data"]["retryJob"]["progress"] == {"done": 2, "total": 3, "failed": 0}
    expect(job).to_contain_text("Done, with errors")


def test_jobs_are_there_when_the_page_is_opened_again(page: Page, url: str, open_page: Open) -> None:
    submit(page, "Encore.")
    expect(newest(page)).to_contain_text("Done: 1 of 1 texts")
    name = newest(page).get_attribute("id")
    assert name is not None
    expect(open_page(f"{url}/jobs").locator(f"#{name}")).to_contain_text("Done: 1 of 1 texts")


def test_what_cannot_be_submitted_is_told_and_stays(page: Page, tmp_path: Path) -> None:
    page.fill("#lines", " \n\n")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#outcome")).to_contain_text("There is nothing to translate")
    page.fill("#lines", "Bonjour.")
    page.route("**/graphql", lambda route: route.fulfill(json={"data": {"submitTranslation": 3, "jobs": None}}))
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("does not understand")
    expect(page.locator("#lines")).to_have_value("Bonjour.")
    page.unroute("**/graphql")
    file = tmp_path / "latin.txt"
    file.write_bytes("été".encode("latin-1"))
    page.set_input_files("#file", file)
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("Save it as UTF-8")


def test_the_focus_stays_while_the_list_is_updated_and_updates_can_be_paused(page: Page) -> None:
    submit(page, SLOW)
    cancel, state = newest(page).get_by_role("button", name="Cancel"), newest(page).locator(".state")
    expect(state).to_have_text(RUNNING)
    cancel.focus()
    expect(state).not_to_have_text(state.inner_text())
    expect(cancel).to_be_focused()
    with page.expect_event("requestfailed", is_subscription):
        page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("The page does not update.")).to_be_visible()
    with page.expect_request(is_subscription):
        page.get_by_role("button", name="Go on").click()
    cancel.click()
    expect(newest(page)).to_contain_text("Cancelled")
