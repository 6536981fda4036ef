"""Grafana's dashboard: every panel has a description, and every query uses metrics that exist."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose.metrics import names
from tests.compose.prometheus import CONFIGURATION, DASHBOARD, panels, promtool, queries
from tests.conftest import REPOSITORY

PROVISIONING = REPOSITORY / "compose" / "grafana" / "provisioning"
COMPOSE = REPOSITORY / "docker-compose.yml"
UNITS = {"bytes", "ops", "percentunit", "reqps", "s", "short"}


def asked(expression: str) -> set[str]:
    """The metrics of a query: what is no function, label, keyword or duration."""
    bare = re.sub(r"{[^}]*}|\[[^]]*\]|by \([^)]*\)", "", expression)
    return set(re.findall(r"[a-zA-Z_]\w*\b(?!\s*\()", bare))


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
    return across and one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def test_panels_have_places_and_names_of_their_own(dashboard: dict[str, Any]) -> None:
    every = dashboard["panels"]
    assert [panel["id"] for panel in every] == list(range(1, len(every) + 1))
    assert [panel["title"] for panel in every if panel["type"] == "row"] == ["Requests", "Queues", "Workers", "Models"]
    assert len({panel["title"] for panel in panels()}) == len(panels())
    for one, other in itertools.combinations([panel["gridPos"] for panel in every], 2):
        assert not overlap(one, other)
    assert all(place["x"] + place["w"] <= 24 for place in (panel["gridPos"] for panel in every))


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel.keys() == {"id", "type", "title", "gridPos", "description", "fieldConfig", "targets"}
    assert panel["type"] == "timeseries"
    assert panel["title"]
    assert panel["description"].endswith(".")
    unit = panel["fieldConfig"]["defaults"]["unit"]
    assert unit in UNITS or unit.startswith("suffix: ")
    assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])
    assert all(target.keys() == {"refId", "legendFormat", "expr"} for target in panel["targets"])
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert all(legends)
    assert len(set(legends)) == len(legends)


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"query{i}", "expr": expression} for i, (expression, _) in enumerate(queries().values())]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")


@pytest.mark.parametrize("query", queries())
def test_a_query_asks_for_what_there_is(query: str) -> None:
    found = asked(queries()[query][0])
    assert found
    unknown = found - names()
    assert all(name.startswith(("flower_", "process_", "rabbitmq_detailed_")) for name in unknown), unknown


def test_grafana_finds_what_it_is_given() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "tolk.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounts["./compose/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./compose/grafana/provisioning"] == "/etc/grafana/provisioning"
    [source] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["isDefault"]  # panels name none
    assert source["jsonData"]["timeInterval"] == yaml.safe_load(CONFIGURATION.read_text())["global"]["scrape_interval"]
