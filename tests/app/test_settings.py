from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.settings import REPOSITORY, Settings
from tasks.environment import SettingsError
from telemetry.address import Address


def test_the_defaults_are_those_of_an_empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # nobody reads along
    defaults = Settings(
        database=make_url(f"sqlite:///{REPOSITORY}/.run/tolk.sqlite"),
        log_format="json",
        traces=REPOSITORY / ".run" / "traces",
    )
    assert Settings.from_env({}) == defaults
    assert Settings.from_env({"TOLK_MAX_TEXTS": "", "TOLK_MODELS": "", "PORT": "", "DATABASE_URL": ""}) == defaults


def test_every_variable_sets_its_field() -> None:
    assert Settings.from_env(
        {
            "TOLK_TRANSLATOR": "echo",
            "TOLK_MODELS": "/etc/tolk/models.toml",
            "TOLK_MAX_TEXTS": "1",
            "TOLK_MAX_TEXT_CHARACTERS": "2",
            "TOLK_MAX_REQUEST_CHARACTERS": "3",
            "TOLK_MAX_TIMEOUT": "120",
            "TOLK_JOB_DAYS": "30",
            "TOLK_JOB_LEASE": "90",
            "TOLK_WEBHOOK_SECRET": "a long and random secret",
            "TOLK_WEBHOOK_PRIVATE": "on",
            "TOLK_HOST": "::1",
            "PORT": "8080",
            "TOLK_FLOWER_URL": "https://flower.example/",
            "DATABASE_URL": "postgres://tolk:secret@db/tolk",
            "TOLK_INTROSPECTION": "off",
            "TOLK_GRAPHIQL": "off",
            "TOLK_ORIGINS": "https://a.example, http://localhost:3000,",
            "TOLK_LOG_TEXTS": "on",
            "TOLK_LOG_FORMAT": "text",
            "TOLK_LOG_LEVEL": "debug",
            "TOLK_TRACES": "/var/lib/tolk/traces",
            "TOLK_METRICS": "[::1]:9100",
            "PROMETHEUS_MULTIPROC_DIR": "/tmp/metrics",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        }
    ) == Settings(
        translator="echo",
        models=Path("/etc/tolk/models.toml"),
        max_texts=1,
        max_text_characters=2,
        max_request_characters=3,
        max_timeout=120,
        job_days=30,
        job_lease=90,
        webhook_secret="a long and random secret",
        webhook_private=True,
        host="::1",
        port=8080,
        flower="https://flower.example/",
        database=make_url("postgresql+psycopg://tolk:secret@db/tolk"),
        introspection=False,
        graphiql=False,
        origins=("https://a.example", "http://localhost:3000"),
        log_texts=True,
        log_format="text",
        log_level="debug",
        traces=Path("/var/lib/tolk/traces"),
        metrics=Address("::1", 9100),
        metrics_files=Path("/tmp/metrics"),
        export_spans=True,
    )


def test_no_traces_are_kept_where_that_is_off() -> None:
    assert Settings.from_env({"TOLK_TRACES": "off"}).traces is None


def test_a_secret_may_stand_in_a_file_and_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("postgresql://tolk:secret@db/tolk\n")
    settings = Settings.from_env({"DATABASE_URL_FILE": str(path)})
    assert settings.database.password == "secret"
    assert "secret" not in repr(settings)


def test_a_database_that_cannot_be_used_is_refused_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" ")
    for environ in (
        {"DATABASE_URL": "mysql://tolk:secret@db/tolk"},
        {"DATABASE_URL": "secret"},
        {"DATABASE_URL": "sqlite://secret", "DATABASE_URL_FILE": "secret"},
        {"DATABASE_URL_FILE": str(tmp_path / "nowhere")},
        {"DATABASE_URL_FILE": str(tmp_path / "empty")},
    ):
        with pytest.raises(SettingsError, match=r"^DATABASE_URL\w*: .* expected") as refused:
            Settings.from_env(environ)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOLK_TRANSLATOR", "Echo"),
        ("TOLK_MAX_TEXTS", "0"),
        ("TOLK_MAX_TEXTS", "-1"),
        ("TOLK_MAX_TEXTS", "1.5"),
        ("TOLK_MAX_TEXTS", "٣"),
        ("TOLK_MAX_TEXT_CHARACTERS", "many"),
        ("TOLK_MAX_REQUEST_CHARACTERS", "9" * 5_000),
        ("TOLK_MAX_TIMEOUT", "9"),  # shorter than the default timeout, which is part of the schema
        ("TOLK_MAX_TIMEOUT", "inf"),
        ("TOLK_JOB_DAYS", "0"),
        ("TOLK_JOB_LEASE", "a minute"),
        ("TOLK_WEBHOOK_SECRET", "too-short"),
        ("TOLK_WEBHOOK_PRIVATE", "yes"),
        ("PORT", "65536"),
        ("TOLK_FLOWER_URL", "javascript:alert(1)"),
        ("TOLK_INTROSPECTION", "no"),
        ("TOLK_GRAPHIQL", "Off"),
        ("TOLK_GRAPHIQL", "0"),
        ("TOLK_LOG_TEXTS", "true"),
        ("TOLK_LOG_FORMAT", "xml"),
        ("TOLK_LOG_LEVEL", "INFO"),
        ("TOLK_METRICS", "9100"),
        ("TOLK_METRICS", ":9100"),
        ("TOLK_METRICS", "::1:9100"),
        ("TOLK_METRICS", "127.0.0.1:65536"),
        ("TOLK_METRICS", "127.0.0.1:8000"),  # where the service listens
        ("TOLK_ORIGINS", "*"),
        ("TOLK_ORIGINS", "null"),
        ("TOLK_ORIGINS", "a.example"),
        ("TOLK_ORIGINS", "https://*.example"),
        ("TOLK_ORIGINS", "https://a.example/"),
        ("TOLK_ORIGINS", "https://a.example,https://B.example"),
        ("TOLK_ORIGINS", "https://a.example:443"),
        ("TOLK_ORIGINS", "http://a.example:80"),
        ("TOLK_ORIGINS", "https://user@a.example"),
        ("TOLK_ORIGINS", "https://a.example https://b.example"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: .*expected"):
        Settings.from_env({name: value})


def test_no_request_makes_a_message_that_the_queue_refuses() -> None:
    Settings.from_env({"TOLK_MAX_REQUEST_CHARACTERS": "340000"})
    with pytest.raises(SettingsError, match=r"^TOLK_MAX_REQUEST_CHARACTERS, TOLK_MAX_TEXTS: .* expected"):
        Settings.from_env({"TOLK_MAX_REQUEST_CHARACTERS": "350000"})


@pytest.mark.parametrize(
    "command",
    [
        ["flask", "--app", "app", "run", "--port", "0"],
        ["flask", "--app", "app", "schema", "export"],
        ["gunicorn"],
        ["celery", "-A", "app.jobs.results", "worker"],
    ],
)
@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        (
            {"TOLK_MAX_TEXTS": "many"},
            "tolk: TOLK_MAX_TEXTS: a whole number from 1 to 1000000000 was expected, not 'many'.",
        ),
        ({"TOLK_MODELS": "nowhere.toml"}, "tolk: nowhere.toml: cannot be read (No such file or directory)."),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_sentence(
    command: list[str], variable: dict[str, str], sentence: str
) -> None:
    environ = {**os.environ, "TOLK_TRANSLATOR": "echo", "PORT": "0", **variable}
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr.splitlines()) == (1, [sentence])


@pytest.mark.parametrize("command", [["flask", "--app", "app", "run", "--port", "0"], ["gunicorn"]])
def test_a_server_that_cannot_read_how_to_reach_the_broker_says_why(command: list[str]) -> None:
    environ = {**os.environ, "PORT": "0", "CELERY_BROKER_URL": "", "CELERY_BROKER_URL_FILE": "/nowhere"}
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=60
    )
    sentence = "tolk: CELERY_BROKER_URL_FILE: a file that can be read was expected, not '/nowhere'"
    assert ended.returncode == 1
    assert ended.stderr.startswith(sentence)
    assert len(ended.stderr.splitlines()) == 1


def test_the_web_tier_runs_without_torch_models_and_celery() -> None:
    program = """
import sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "models", "celery", "kombu"} or name.startswith("tasks.worker"):
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Wall())
from app import create_app
from app.settings import Settings

client = create_app(Settings(translator="echo")).test_client()
document = 'mutation { translate(input: {texts: ["Bonjour."], target: "en"}) { translations { text } } }'
answer = client.post("/graphql", json={"query": document})
assert answer.json == {"data": {"translate": {"translations": [{"text": "Bonjour."}]}}}, answer.text
"""
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, timeout=60)


@pytest.mark.parametrize("url", ["postgresql://u:secret@h:abc/x", "postgresql://u:secret@[::1/x", "sqlite://x:y/z"])
def test_an_address_of_a_database_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL: ") as refused:
        Settings.from_env({"DATABASE_URL": url})
    assert "secret" not in str(refused.value)
