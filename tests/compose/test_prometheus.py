"""The files of Prometheus: promtool accepts them, and every alert has tests and an explanation."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
import yaml

from tests.compose.metrics import names
from tests.compose.prometheus import ALERTS, CONFIGURATION, alerts, jobs, promtool
from tests.conftest import REPOSITORY

CASES = ALERTS.with_name("alerts.test.yml")
OPERATIONS = REPOSITORY / "docs" / "operations.md"


def test_promtool_accepts_the_configuration() -> None:
    promtool("check", "config", CONFIGURATION)


def test_promtool_accepts_the_alerts() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS)


def test_alerts_fire_in_the_cases_in_which_they_are_to() -> None:
    promtool("test", "rules", CASES)


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    outcomes: defaultdict[str, set[bool]] = defaultdict(set)
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        name = case["name"].partition(":")[0]
        expected = [each for test in case["promql_expr_test"] for each in test.get("exp_samples", [])]
        outcomes[name].add(any(f'alertname="{name}", alertstate="firing"' in each["labels"] for each in expected))
    assert outcomes == {name: {True, False} for name in alerts()}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"


@pytest.mark.parametrize("name", alerts())
def test_an_alert_has_its_heading_in_the_documentation(name: str) -> None:
    assert re.search(rf"^#+ {name}$", OPERATIONS.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", alerts())
def test_an_alert_asks_for_nothing_that_tolk_does_not_tell(name: str) -> None:
    asked = set(re.findall(r"\btolk_\w+", alerts()[name]["expr"]))
    assert asked <= names()


def test_every_target_is_a_service_that_prometheus_can_reach() -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    for name, job in jobs().items():
        static = [target for group in job.get("static_configs", []) for target in group["targets"]]
        found = [host for group in job.get("dns_sd_configs", []) for host in group["names"]]
        hosts = [*found, *(target.partition(":")[0] for target in static)]
        assert hosts, name
        assert all("metrics" in services[host]["networks"] for host in hosts), name
    port = services["web"]["environment"]["TOLK_METRICS"].partition(":")[2]
    assert jobs()["tolk-web"]["static_configs"] == [{"targets": [f"web:{port}"]}]
