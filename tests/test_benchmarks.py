"""The baselines of the benchmarks do the same work as Tolk."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask

from benchmarks.baselines import flask_app, graphql_app
from benchmarks.path import DOCUMENT, TEXT


@pytest.mark.parametrize("build", [flask_app, graphql_app])
def test_a_baseline_of_the_web_tier_answers(build: Callable[[], Flask]) -> None:
    variables = {"input": {"texts": [TEXT], "source": "fr", "target": "en"}}
    answer = build().test_client().post("/graphql", json={"query": DOCUMENT, "variables": variables})
    assert answer.status_code == 200
    assert answer.get_json()["data"]["translate"]["translations"][0]["text"] == TEXT
