from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import REPOSITORY, Settings, SettingsError


def test_the_defaults_are_those_of_an_empty_environment() -> None:
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"TOLK_MAX_TEXTS": "", "TOLK_MODELS": "", "PORT": ""}) == Settings()


def test_every_variable_sets_its_field() -> None:
    assert Settings.from_env(
        {
            "TOLK_TRANSLATOR": "echo",
            "TOLK_MODELS": "/etc/tolk/models.toml",
            "TOLK_MAX_TEXTS": "1",
            "TOLK_MAX_TEXT_CHARACTERS": "2",
            "TOLK_MAX_REQUEST_CHARACTERS": "3",
            "TOLK_MAX_TIMEOUT": "120",
            "TOLK_HOST": "::1",
            "PORT": "8080",
            "TOLK_FLOWER_URL": "https://flower.example/",
            "TOLK_INTROSPECTION": "off",
            "TOLK_GRAPHIQL": "off",
            "TOLK_ORIGINS": "https://a.example, http://localhost:3000,",
            "TOLK_LOG_TEXTS": "on",
        }
    ) == Settings(
        translator="echo",
        models=Path("/etc/tolk/models.toml"),
        max_texts=1,
        max_text_characters=2,
        max_request_characters=3,
        max_timeout=120,
        host="::1",
        port=8080,
        flower="https://flower.example/",
        introspection=False,
        graphiql=False,
        origins=("https://a.example", "http://localhost:3000"),
        log_texts=True,
    )


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
        ("PORT", "65536"),
        ("TOLK_FLOWER_URL", "javascript:alert(1)"),
        ("TOLK_INTROSPECTION", "no"),
        ("TOLK_GRAPHIQL", "Off"),
        ("TOLK_GRAPHIQL", "0"),
        ("TOLK_LOG_TEXTS", "true"),
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
    with pytest.raises(SettingsError, match=f"^{name}: .* expected"):
        Settings.from_env({name: value})


@pytest.mark.parametrize(
    "command",
    [["flask", "--app", "app", "run", "--port", "0"], ["flask", "--app", "app", "schema", "export"], ["gunicorn"]],
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


def test_the_web_tier_runs_without_torch_models_and_celery() -> None:
    program = """
import sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "models", "celery", "kombu"} or name == "tasks.worker":
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
