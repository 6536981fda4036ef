"""The pages of a service that requires API keys."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, expect
from sqlalchemy import make_url

from app.accounts import keys
from app.accounts.keys import Scope
from app.database.transactions import Database

pytestmark = pytest.mark.browser

NEEDED = "An API key is needed."
WRONG = "This API key is wrong, or was revoked."

Open = Callable[..., Page]


class Keys:
    """Makes an API key of the service by name."""

    def __init__(self, path: Path) -> None:
        self.database = Database(make_url(f"sqlite:///{path}"))
        self.secrets: list[str] = []

    def create(self, name: str, *scopes: Scope, **limits: int) -> str:
        secret = self.database.run(lambda connection: keys.create(connection, name, scopes, **limits))
        self.secrets.append(secret)
        return secret

    def revoke(self, name: str) -> None:
        self.database.run(lambda connection: keys.revoke(connection, name))


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    ring = Keys(tmp_path_factory.mktemp("database") / "tolk.sqlite")
    yield ring
    ring.database.close()


@pytest.fixture(scope="module")
def key(ring: Keys) -> str:
    """A key with all permissions."""
    return ring.create("everything", Scope.TRANSLATE, Scope.STATUS)


@pytest.fixture(scope="module")
def url(start_web: Callable[..., str], ring: Keys, key: str) -> str:
    return start_web("", TOLK_TRANSLATOR="echo", DATABASE_URL=str(ring.database.url))


@pytest.fixture
def seen() -> list[str | None]:
    """The Authorization header of each request to the API."""
    return []


@pytest.fixture
def open_path(url: str, open_page: Open, ring: Keys, seen: list[str | None]) -> Iterator[Open]:
    """Opens a path of the service. After the test, checks that no key is in a document or on a console."""
    pages: list[Page] = []
    written: list[str] = []

    def open_(path: str, script: str = "", **options: object) -> Page:
        page = open_page("about:blank", **options)
        page.on("console", lambda message: written.append(message.text))
        page.on(
            "request", lambda request: request.method == "POST" and seen.append(request.headers.get("authorization"))
        )
        page.add_init_script(script)
        page.goto(f"{url}{path}")
        pages.append(page)
        return page

    yield open_
    for text in [*written, *(page.content() for page in pages if not page.url.endswith("/graphql"))]:
        assert not any(secret in text for secret in ring.secrets)


@pytest.fixture
def page(open_path: Open) -> Page:
    """The translator page, which asks for a key when a text is entered."""
    page = open_path("/")
    page.fill("#text", "Bonjour.")
    expect(page.get_by_role("alert")).to_contain_text(NEEDED)
    return page


def use(page: Page, key: str) -> None:
    page.fill("#key", key)
    page.locator("#key").press("Enter")


def kept(page: Page) -> str | None:
    return page.evaluate("sessionStorage.getItem('tolk.key')")


def test_a_key_is_asked_for_and_the_text_is_sent_again_with_it(page: Page, key: str, seen: list[str | None]) -> None:
    field = page.get_by_label("API key")
    expect(field).to_have_attribute("type", "password")
    expect(field).to_have_attribute("autocomplete", "off")
    expect(field).to_have_accessible_description(re.compile("flask --app app keys create"))
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    expect(page.locator("#text")).to_be_focused()  # so that further typing does not go into the field of the key
    field.fill(f" {key} ")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#output")).to_have_text("Bonjour.")
    expect(field).to_be_hidden()
    expect(page.locator("#text")).to_be_focused()
    assert seen == [None, f"Bearer {key}"]


def test_the_key_is_kept_for_the_pages_of_the_tab_and_for_no_other(
    page: Page, url: str, key: str, seen: list[str | None]
) -> None:
    use(page, key)
    expect(page.locator("#output")).to_have_text("Bonjour.")
    page.get_by_role("link", name="Status").click()
    expect(page.locator("#models")).to_contain_text("fr-en")
    page.reload()
    expect(page.locator("#models")).to_contain_text("fr-en")
    assert seen[0] is None
    assert set(seen[1:]) == {f"Bearer {key}"}
    other = page.context.new_page()
    other.goto(url)
    assert kept(other) is None
    expect(other.get_by_role("button", name="Forget the key")).to_be_hidden()


def test_after_a_wrong_key_the_field_comes_back(page: Page, key: str) -> None:
    use(page, f"{key}x")
    expect(page.get_by_role("alert")).to_contain_text(WRONG)
    field = page.get_by_label("Another API key")
    expect(field).to_have_value("")
    expect(field).to_be_focused()
    use(page, key)
    expect(page.locator("#output")).to_have_text("Bonjour.")


def test_after_a_revoked_key_another_is_asked_for(
    page: Page, key: str, ring: Keys, eventually: Callable[..., None]
) -> None:
    use(page, ring.create("revoked", Scope.TRANSLATE))
    expect(page.locator("#output")).to_have_text("Bonjour.")
    ring.revoke("revoked")

    attempts = itertools.count()

    def refused() -> bool:
        with page.expect_response("**/graphql") as answer:
            page.fill("#text", f"Bonjour {next(attempts)}.")
            page.locator("#text").press("Control+Enter")
        return answer.value.status == 401

    eventually(refused)  # a web process remembers a key for two seconds
    expect(page.get_by_role("alert")).to_contain_text(WRONG)
    page.fill("#text", "Salut.")
    use(page, key)
    expect(page.locator("#output")).to_have_text("Salut.")


@pytest.mark.parametrize("wrong", ["", "clé", "tolk_ x"])
def test_what_cannot_be_a_key_is_not_sent(page: Page, seen: list[str | None], wrong: str) -> None:
    use(page, wrong)
    assert page.evaluate("!document.getElementById('key').checkValidity()")
    assert kept(page) is None
    assert seen == [None]


def test_without_a_key_typing_sends_nothing(page: Page, key: str, seen: list[str | None]) -> None:
    page.clock.install()
    for text in ("Salut", "", "Salut."):
        page.fill("#text", text)
        page.clock.fast_forward(60_000)
    assert seen == [None]
    with page.expect_response("**/graphql"):
        page.locator("#text").press("Control+Enter")
    use(page, key)
    expect(page.locator("#output")).to_have_text("Salut.")
    page.fill("#text", "Au revoir.")
    page.clock.fast_forward(400)
    expect(page.locator("#output")).to_have_text("Au revoir.")


@pytest.mark.parametrize(("path", "has", "lacks"), [("/", "status", "translate"), ("/status", "translate", "status")])
def test_a_key_without_the_scope_can_be_replaced(
    open_path: Open, ring: Keys, key: str, seen: list[str | None], path: str, has: str, lacks: str
) -> None:
    page = open_path(path)
    if path == "/":
        page.fill("#text", "Bonjour.")
    expect(page.get_by_role("alert")).to_contain_text(NEEDED)
    page.clock.install()
    use(page, ring.create(f"{has} only", Scope(has)))
    expect(page.get_by_role("alert")).to_contain_text(f"has no scope `{lacks}`")
    expect(page.get_by_label("Another API key")).to_be_focused()
    page.clock.fast_forward(60_000)
    use(page, key)
    expect(page.locator("#trouble")).to_be_hidden()
    assert len(seen) == 3  # the page does not repeat requests that are forbidden
    if path == "/status":
        expect(page.locator("#models")).to_contain_text("fr-en")
        with page.expect_response("**/graphql"):
            page.clock.fast_forward(3_000)


def test_jobs_and_their_files_are_those_of_the_key(
    open_path: Open, ring: Keys, key: str, seen: list[str | None], url: str
) -> None:
    page = open_path("/jobs")
    expect(page.get_by_role("alert")).to_contain_text(NEEDED)
    use(page, key)
    expect(page.locator("#trouble")).to_be_hidden()
    page.fill("#lines", "Bonjour.")
    with page.expect_response(lambda response: response.request.headers.get("accept") == "text/event-stream") as stream:
        page.get_by_role("button", name="Submit").click()
    assert stream.value.status == 200
    job = page.locator("#jobs tr")
    expect(job).to_contain_text("0 of 1 texts")
    with page.expect_download() as download:
        job.get_by_role("link", name="NDJSON").click()
    assert json.loads(Path(download.value.path()).read_text())["original"] == "Bonjour."
    assert (
        requests.get(f"{url}{job.get_by_role('link', name='TSV').get_attribute('href')}", timeout=10).status_code == 401
    )
    use_another = open_path("/jobs")
    use(use_another, ring.create("another", Scope.TRANSLATE))
    expect(use_another.get_by_text("There are no jobs.")).to_be_visible()


def test_who_asks_too_often_is_told_when_the_page_asks_again(page: Page, ring: Keys, seen: list[str | None]) -> None:
    use(page, ring.create("slow", Scope.TRANSLATE, requests_per_minute=1))
    expect(page.locator("#output")).to_have_text("Bonjour.")
    page.clock.install()
    page.fill("#text", "Salut.")
    page.clock.fast_forward(400)
    expect(page.get_by_role("alert")).to_contain_text(re.compile(r"The page tries again at \d\d:\d\d:\d\d\."))
    page.fill("#text", "Au revoir.")
    page.clock.fast_forward(30_000)
    assert len(seen) == 3
    with page.expect_response("**/graphql"):
        page.clock.fast_forward(31_000)


def test_the_status_is_not_asked_for_before_the_service_wants_it(open_path: Open, key: str) -> None:
    limited = {"message": "Too fast.", "extensions": {"code": "RATE_LIMITED", "retryAfter": 30}}
    page = open_path("/")
    page.evaluate("(key) => sessionStorage.setItem('tolk.key', key)", key)
    page.clock.install()
    page.clock.pause_at("2100-01-01T12:00:00")
    page.route("**/graphql", lambda route: route.fulfill(status=429, body=json.dumps({"errors": [limited]})))
    page.get_by_role("link", name="Status").click()
    expect(page.get_by_role("alert")).to_contain_text("Too fast.")
    expect(page.get_by_role("alert")).to_contain_text("The page asks again at 12:00:30.")
    page.unroute("**/graphql")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.run_for(29_000)
    expect(page.locator("#updated")).to_have_text("not yet")
    page.clock.run_for(2_000)
    expect(page.locator("#models")).to_contain_text("fr-en")


def test_a_key_can_be_forgotten(page: Page, key: str, seen: list[str | None]) -> None:
    use(page, key)
    expect(page.locator("#output")).to_have_text("Bonjour.")
    forget = page.get_by_role("button", name="Forget the key")
    forget.click()
    expect(forget).to_be_hidden()
    assert kept(page) is None
    page.fill("#text", "Salut.")
    expect(page.get_by_role("alert")).to_contain_text(NEEDED)
    assert seen[-1] is None


def test_where_the_browser_keeps_nothing_the_key_lasts_as_long_as_the_page(open_path: Open, key: str) -> None:
    page = open_path("/", "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('') } })")
    page.fill("#text", "Bonjour.")
    use(page, key)
    expect(page.locator("#output")).to_have_text("Bonjour.")
    page.get_by_role("button", name="Forget the key").click()
    page.fill("#text", "Salut.")
    expect(page.get_by_role("alert")).to_contain_text(NEEDED)


@pytest.mark.parametrize("path", ["/", "/status"])
def test_everybody_can_enter_a_key(open_path: Open, check_access: Callable[[Page], None], path: str) -> None:
    page = open_path(path)
    if path == "/":
        page.fill("#text", "Bonjour.")
    use(page, "wrong")
    expect(page.get_by_role("alert")).to_contain_text(WRONG)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 640})
            check_access(page)
    page.locator("#key").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Use this key")).to_be_focused()


def test_graphiql_sends_the_headers_of_its_editor_and_keeps_them_for_the_tab(
    open_path: Open, key: str, seen: list[str | None], eventually: Callable[..., None]
) -> None:
    page = open_path("/graphql")
    schema = page.get_by_text("A GraphQL schema provides a root type")
    answer = page.locator(".result-window")
    expect(answer).to_contain_text(NEEDED)
    page.get_by_role("button", name="Headers").click()
    page.locator("[aria-label=Headers] .CodeMirror").locator("visible=true").click()
    page.keyboard.type(f'{{"Authorization": "Bearer {key}')  # the editor adds closing quotes and brackets
    eventually(lambda: key in page.evaluate("JSON.stringify(sessionStorage)"))  # GraphiQL stores it half a second later
    page.get_by_role("button", name="Re-fetch GraphQL schema").click()
    page.get_by_role("button", name="Show Documentation Explorer").click()
    expect(schema).to_be_visible()
    page.get_by_role("button", name="Execute query").click()
    expect(answer).to_contain_text("Je vais dormir.")
    assert page.evaluate("localStorage.length") == 0
    seen.clear()
    page.reload()
    page.get_by_role("button", name="Show Documentation Explorer").click()
    expect(schema).to_be_visible()
    assert set(seen) == {f"Bearer {key}"}
