from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/", "/jobs", "/status", "/graphql"])
def test_pages_load_only_what_is_served_here(client: FlaskClient, path: str) -> None:
    page = client.get(path, headers=HTML)
    assert page.status_code == 200
    assert page.mimetype == "text/html"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    loaded = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)="([^"]+)""", page.text)
    assert loaded
    for address in loaded:
        if address != "data:,":
            assert address.startswith("/static/")
            asset = client.get(address)
            assert asset.status_code == 200
            assert "sourceMappingURL" not in asset.text
            if asset.mimetype == "text/css":
                assert not re.search(r"""url\(["']?(?!data:)|@import""", asset.text)
    assert not re.search(r"<script[^>]*>(?!</script>)|\son\w+=|style=", page.text)


def test_each_asset_has_its_licence_beside_it(client: FlaskClient) -> None:
    for name in ("LICENSE.graphiql", "LICENSE.react", "LICENSES.txt"):
        assert "Permission is hereby granted" in client.get(f"/static/graphiql/{name}").text


def test_the_page_says_what_each_model_is_good_for(client: FlaskClient) -> None:
    page = client.get("/", headers=HTML).text
    assert "fr → en: Good at" in page
    assert "en → fr: Good at" in page
