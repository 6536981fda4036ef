"""Actions on the translator page for its tests."""

from __future__ import annotations

import json

from playwright.sync_api import Page, Route


def output(page: Page):
    return page.locator("#output")


def translate(page: Page, text: str) -> None:
    """Sends the text at once, without the pause after typing."""
    page.fill("#text", text)
    page.locator("#text").press("Control+Enter")


def is_request(request) -> bool:
    return request.url.endswith("/graphql")


def text_of(request) -> str:
    return request.post_data_json["variables"]["input"]["texts"][0]


def answer_with(page: Page, status: int, body: str) -> list[str]:
    """Lets the API return this answer, and returns the list of the texts that it receives."""
    texts: list[str] = []

    def answer(route: Route) -> None:
        texts.append(text_of(route.request))
        route.fulfill(status=status, body=body)

    page.route("**/graphql", answer)
    return texts


def error(code: str, message: str, **extensions: object) -> str:
    return json.dumps({"errors": [{"message": message, "extensions": {"code": code, **extensions}}]})
