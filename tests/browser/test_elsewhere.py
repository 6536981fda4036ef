"""A page of another site, in a real browser, gets no translations unless its origin is allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

FETCH = """
async (address) => {
  const query = 'mutation { translate(input: {texts: ["Un."], target: "en"}) { model } }';
  const headers = { "Content-Type": "application/json", Authorization: "Bearer none" };
  try {
    const answer = await fetch(address, { method: "POST", headers, body: JSON.stringify({ query }) });
    return [answer.status, answer.headers.get("X-Request-Id")?.length];
  } catch (error) {
    return error.name;
  }
}
"""
FORM = """
(address) => {
  document.body.innerHTML = `<form method="post" action="${address}"><input name="query"></form>`;
  document.querySelector("input").value = '{ translate(sentence: "Un.") { translatedString } }';
  document.querySelector("form").submit();
}
"""


class Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Elsewhere</title><body>")

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The origin of another site: `localhost`, while Tolk has the origin 127.0.0.1."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: Browser, elsewhere: str) -> Iterator[Page]:
    with browser.new_context() as profile:
        page = profile.new_page()
        page.goto(elsewhere)
        yield page


def test_a_form_from_elsewhere_is_refused(page: Page, start_web: Callable[..., str]) -> None:
    web = start_web("", TOLK_TRANSLATOR="echo")
    with page.expect_response(f"{web}/api/graphql") as answer:
        page.evaluate(FORM, f"{web}/api/graphql")
    assert answer.value.status == 403
    assert answer.value.request.headers["content-type"] == "application/x-www-form-urlencoded"


def test_a_script_from_elsewhere_needs_its_origin_let_in(
    page: Page, elsewhere: str, start_web: Callable[..., str]
) -> None:
    closed, opened = (
        start_web("", TOLK_TRANSLATOR="echo"),
        start_web("", TOLK_TRANSLATOR="echo", TOLK_ORIGINS=elsewhere),
    )
    assert page.evaluate(FETCH, f"{closed}/graphql") == "TypeError"
    assert page.evaluate(FETCH, f"{opened}/api/graphql") == "TypeError"
    status, length = page.evaluate(FETCH, f"{opened}/graphql")
    assert status in (200, 401)  # in both cases an answer that the script may read
    assert length == 36
