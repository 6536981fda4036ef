"""The pages in front of a service that wants an API key; the browser's side of it is the one under test here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, Route, expect

pytestmark = pytest.mark.browser

NEEDED = "An API key is needed."
UNKNOWN = "This key is not known, or was revoked."
BEYOND = "This key may not do that."

Open = Callable[..., Page]


class Gate:
    """Stands where the service looks at keys: those in `keys` may do everything, those in `weak` nothing."""

    def __init__(self) -> None:
        self.keys = ["tolk_right"]
        self.weak = ["tolk_weak"]
        self.seen: list[str | None] = []  # the Authorization of each request

    def answer(self, route: Route) -> None:
        authorization = route.request.headers.get("authorization")
        if route.request.method == "GET":
            return route.fallback()
        self.seen.append(authorization)
        key = (authorization or "").removeprefix("Bearer ")
        if key in self.keys:
            return route.fallback()
        if key in self.weak:
            return refuse(route, 403, "FORBIDDEN", BEYOND)
        return refuse(route, 401, "UNAUTHENTICATED", UNKNOWN if key else NEEDED)


def refuse(route: Route, status: int, code: str, message: str, **extensions: object) -> None:
    body = json.dumps({"errors": [{"message": message, "extensions": {"code": code, **extensions}}]})
    route.fulfill(status=status, body=body)


@pytest.fixture(scope="module")
def url(start_web: Callable[..., str]) -> str:
    return start_web("", TOLK_TRANSLATOR="echo")


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def open_gated(url: str, open_page: Open, gate: Gate) -> Iterator[Open]:
    """Opens a path of the service behind the gate. In the end no key is in a document or was written on a console."""
    pages: list[Page] = []
    written: list[str] = []

    def open_(path: str, **options: object) -> Page:
        page = open_page("about:blank", **options)
        page.context.on("console", lambda message: written.append(message.text))
        page.route("**/graphql", gate.answer)
        page.goto(f"{url}{path}")
        pages.append(page)
        return page

    yield open_
    for text in [*written, *(page.content() for page in pages if not page.url.endswith("/graphql"))]:
        assert not any(key in text for key in gate.keys + gate.weak)


@pytest.fixture
def page(open_gated: Open) -> Page:
    return open_gated("/")


def use(page: Page, key: str) -> None:
    page.fill("#key", key)
    page.locator("#key").press("Enter")


def kept(page: Page) -> str | None:
    return page.evaluate("sessionStorage.getItem('tolk.key')")


def test_a_key_is_asked_for_and_the_text_is_sent_again_with_it(page: Page, gate: Gate) -> None:
    page.keyboard.type("Bonjour.")
    expect(page.get_by_role("alert")).to_contain_text(NEEDED)
    field = page.get_by_label("API key")
    expect(field).to_have_attribute("type", "password")
    expect(field).to_have_attribute("autocomplete", "off")
    expect(field).to_have_accessible_description(re.compile("flask --app app keys create"))
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    expect(page.locator("#text")).to_be_focused()  # who goes on typing does not type into the field
    field.fill(" tolk_right ")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#output")).to_have_text("Bonjour.")
    expect(field).to_be_hidden()
    expect(page.locator("#text")).to_be_focused()
    assert gate.seen == [None, "Bearer tolk_right"]


def test_the_key_is_kept_for_the_pages_of_the_tab_and_for_no_other(page: Page, gate: Gate, url: str) -> None:
    page.keyboard.type("Bonjour.")
    use(page, "tolk_right")
    expect(page.locator("#output")).to_have_text("Bonjour.")
    page.get_by_role("link", name="Status").click()
    expect(page.locator("#models")).to_contain_text("fr-en")
    page.reload()
    expect(page.locator("#models")).to_contain_text("fr-en")
    assert set(gate.seen) == {None, "Bearer tolk_right"}
    other = page.context.new_page()
    other.goto(url)
    assert kept(other) is None
    expect(other.get_by_role("button", name="Forget the key")).to_be_hidden()


def test_after_a_wrong_key_the_field_comes_back(page: Page) -> None:
    page.keyboard.type("Bonjour.")
    use(page, "tolk_wrong")
    expect(page.get_by_role("alert")).to_contain_text(UNKNOWN)
    field = page.get_by_label("Another API key")
    expect(field).to_have_value("")
    expect(field).to_be_focused()
    use(page, "tolk_right")
    expect(page.locator("#output")).to_have_text("Bonjour.")


def test_a_key_that_is_revoked_is_asked_for_again(page: Page, gate: Gate) -> None:
    page.keyboard.type("Bonjour.")
    use(page, "tolk_right")
    expect(page.locator("#output")).to_have_text("Bonjour.")
    gate.keys = ["tolk_next"]
    page.fill("#text", "Salut.")
    expect(page.get_by_role("alert")).to_contain_text(UNKNOWN)
    use(page, "tolk_next")
    expect(page.locator("#output")).to_have_text("Salut.")


@pytest.mark.parametrize("key", ["", "clé", "tolk_ right"])
def test_what_cannot_be_a_key_is_not_sent(page: Page, gate: Gate, key: str) -> None:
    page.keyboard.type("Bonjour.")
    expect(page.locator("#key")).to_be_visible()
    use(page, key)
    assert page.evaluate("!document.getElementById('key').checkValidity()")
    assert kept(page) is None
    assert gate.seen == [None]


def test_without_a_key_typing_sends_nothing(page: Page, gate: Gate) -> None:
    page.clock.install()
    page.keyboard.type("Bon")
    page.clock.fast_forward(400)
    expect(page.locator("#key")).to_be_visible()
    for text in ("Bonjour", "", "Bonjour."):
        page.fill("#text", text)
        page.clock.fast_forward(60_000)
    expect(page.locator("#key")).to_be_visible()
    assert gate.seen == [None]
    gate.keys = [""]  # a service that wants none any more
    page.locator("#text").press("Control+Enter")
    expect(page.locator("#output")).to_have_text("Bonjour.")
    page.fill("#text", "Salut.")
    page.clock.fast_forward(400)
    expect(page.locator("#output")).to_have_text("Salut.")
    gate.keys = ["tolk_right"]


def test_a_key_without_the_scope_can_be_replaced(open_gated: Open, gate: Gate) -> None:
    page = open_gated("/status")
    expect(page.get_by_role("alert")).to_contain_text(NEEDED)
    use(page, "tolk_weak")
    expect(page.get_by_role("alert")).to_contain_text(BEYOND)
    expect(page.get_by_label("Another API key")).to_be_focused()
    page.clock.install()
    page.clock.fast_forward(60_000)
    assert gate.seen == [None, "Bearer tolk_weak"]  # it does not go on asking what it may not
    use(page, "tolk_right")
    expect(page.locator("#models")).to_contain_text("fr-en")
    expect(page.locator("#trouble")).to_be_hidden()
    with page.expect_response("**/graphql"):
        page.clock.fast_forward(3_000)


def test_the_status_is_not_asked_for_before_the_service_wants_it(open_page: Open, url: str) -> None:
    page = open_page("about:blank")
    page.clock.install()
    page.clock.pause_at("2100-01-01T12:00:00")
    page.route("**/graphql", lambda route: refuse(route, 429, "RATE_LIMITED", "Too fast.", retryAfter=30))
    page.goto(f"{url}/status")
    expect(page.get_by_role("alert")).to_contain_text("Too fast.")
    expect(page.get_by_role("alert")).to_contain_text("The page asks again at 12:00:30.")
    page.unroute("**/graphql")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.run_for(29_000)
    expect(page.locator("#updated")).to_have_text("not yet")
    page.clock.run_for(2_000)
    expect(page.locator("#models")).to_contain_text("fr-en")


def test_a_key_can_be_forgotten(page: Page, gate: Gate) -> None:
    forget = page.get_by_role("button", name="Forget the key")
    page.keyboard.type("Bonjour.")
    use(page, "tolk_right")
    expect(page.locator("#output")).to_have_text("Bonjour.")
    forget.click()
    expect(forget).to_be_hidden()
    assert kept(page) is None
    page.fill("#text", "Salut.")
    expect(page.get_by_role("alert")).to_contain_text(NEEDED)
    assert gate.seen[-1] is None


def test_where_the_browser_keeps_nothing_the_key_lasts_as_long_as_the_page(
    open_page: Open, url: str, gate: Gate
) -> None:
    page = open_page("about:blank")
    page.add_init_script("Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no') } })")
    page.route("**/graphql", gate.answer)
    page.goto(url)
    page.keyboard.type("Bonjour.")
    use(page, "tolk_right")
    expect(page.locator("#output")).to_have_text("Bonjour.")
    page.get_by_role("button", name="Forget the key").click()
    page.fill("#text", "Salut.")
    expect(page.get_by_role("alert")).to_contain_text(NEEDED)


@pytest.mark.parametrize("path", ["/", "/status"])
def test_everybody_can_enter_a_key(open_gated: Open, check_access: Callable[[Page], None], path: str) -> None:
    page = open_gated(path)
    if path == "/":
        page.keyboard.type("Bonjour.")
    use(page, "tolk_wrong")
    expect(page.get_by_role("alert")).to_contain_text(UNKNOWN)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 640})
            check_access(page)
    page.locator("#key").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Use this key")).to_be_focused()


def test_graphiql_sends_the_headers_of_its_editor_and_keeps_them_for_the_tab(
    open_gated: Open, gate: Gate, eventually: Callable[..., None]
) -> None:
    page = open_gated("/graphql")
    answer = page.locator(".result-window")
    expect(answer).to_contain_text(NEEDED)
    page.get_by_role("button", name="Headers").click()
    page.locator("[aria-label=Headers] .CodeMirror").locator("visible=true").click()
    page.keyboard.type('{"Authorization": "Bearer tolk_right')  # the editor closes what is opened
    eventually(lambda: "tolk_right" in page.evaluate("JSON.stringify(sessionStorage)"))  # it takes half a second to see
    page.get_by_role("button", name="Re-fetch GraphQL schema").click()
    page.get_by_role("button", name="Show Documentation Explorer").click()
    expect(page.get_by_text("A GraphQL schema provides a root type")).to_be_visible()
    page.get_by_role("button", name="Execute query").click()
    expect(answer).to_contain_text("Je vais dormir.")
    assert page.evaluate("localStorage.length") == 0
    gate.seen.clear()
    page.reload()
    page.get_by_role("button", name="Show Documentation Explorer").click()
    expect(page.get_by_text("A GraphQL schema provides a root type")).to_be_visible()
    assert set(gate.seen) == {"Bearer tolk_right"}
