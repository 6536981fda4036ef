"""A real Prometheus with the files of compose/prometheus, and the queries of the dashboard."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import requests
import yaml

from launch.install import PROMETHEUS
from tests.conftest import LOGS, REPOSITORY

CONFIGURATION = REPOSITORY / "compose" / "prometheus" / "prometheus.yml"
ALERTS = CONFIGURATION.with_name("alerts.yml")
DASHBOARD = REPOSITORY / "compose" / "grafana" / "dashboards" / "tolk.json"
INTERVAL = "200ms"  # between two scrapes, and two evaluations of the rules
RATE_INTERVAL = "5s"  # in the place of Grafana's $__rate_interval, which is at least four scrape intervals

Labels = dict[str, str]


def alerts() -> dict[str, dict[str, Any]]:
    """The rules of alerts.yml by their names."""
    return {rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}


def jobs() -> dict[str, dict[str, Any]]:
    """The jobs of prometheus.yml by their names."""
    return {job["job_name"]: job for job in yaml.safe_load(CONFIGURATION.read_text())["scrape_configs"]}


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard that have queries."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries(rate_interval: str = RATE_INTERVAL) -> dict[str, tuple[str, set[str]]]:
    """The queries of the dashboard by panel, each with the labels that its legend shows."""
    return {
        f"{panel['title']}: {target['legendFormat']}": (
            target["expr"].replace("$__rate_interval", rate_interval),
            set(re.findall(r"{{(\w+)}}", target["legendFormat"])),
        )
        for panel in panels()
        for target in panel["targets"]
    }


def promtool(*arguments: object) -> None:
    """Runs promtool; fails the test with its output if it finds an error."""
    if shutil.which("promtool") is None:
        pytest.fail("There is no promtool: `make test` as root installs it.")
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def hurried(targets: dict[str, list[str]], interval: str = INTERVAL) -> dict[str, dict[str, Any]]:
    """Prometheus' two files by name, changed for tests that cannot wait for minutes.

    It scrapes and looks at the rules every `interval`, and alerts fire at once, without their `for`. `targets` stand in
    the place of Compose's services. Everything else is as in the files.
    """
    configuration, rules = yaml.safe_load(CONFIGURATION.read_text()), yaml.safe_load(ALERTS.read_text())
    configuration["global"] |= dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), interval)
    for job in configuration["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": targets.get(job["job_name"], [])}]
    for rule in itertools.chain.from_iterable(group["rules"] for group in rules["groups"]):
        rule.pop("for", None)
    return {CONFIGURATION.name: configuration, ALERTS.name: rules}


class Prometheus:
    """Debian's Prometheus on a port of loopback, with its data and log in `directory`, with short intervals.

    `targets` are those of each job of prometheus.yml: {job: ["host:port"]}. What it is started for has to wait until
    all of them are `up()`.
    """

    def __init__(self, directory: Path, port: int, targets: dict[str, list[str]], interval: str = INTERVAL) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.targets = targets
        self.interval = interval
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = shutil.which(PROMETHEUS)
        if program is None:
            pytest.fail(f"There is no {PROMETHEUS}: `make test` as root installs it.")
        for name, content in hurried(self.targets, self.interval).items():
            (self._directory / name).write_text(json.dumps(content))  # JSON is YAML
        log = LOGS[self._directory.name] = self._directory / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={self._directory / CONFIGURATION.name}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={},  # no proxy
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
        LOGS.pop(self._directory.name, None)

    def up(self) -> bool:
        """Whether it answers, and has reached every target. Fails the test where its process has ended."""
        if self._process is None or self._process.poll() is not None:
            pytest.fail("Prometheus has ended; its log says why.")
        try:
            reached = self.query("up == 1")
        except (requests.ConnectionError, requests.HTTPError):  # it starts
            return False
        return {(labels["job"], labels["instance"]) for labels, _ in reached} == {
            (job, target) for job, targets in self.targets.items() for target in targets
        }

    def query(self, expression: str) -> list[tuple[Labels, float]]:
        """The labels and the present value of every series of an expression. Raises requests.HTTPError."""
        found = self._get("query", query=expression)["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def firing(self, name: str | None = None) -> list[dict[str, Labels]]:
        """The `labels` and `annotations` of the alerts that fire, or only of those of that name."""
        found = self._get("alerts")["alerts"]
        return [each for each in found if each["state"] == "firing" and name in (None, each["labels"]["alertname"])]

    def _get(self, what: str, **parameters: str) -> Any:
        response = requests.get(f"{self.url}/api/v1/{what}", parameters, timeout=10)
        response.raise_for_status()
        return response.json()["data"]
