from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from flask.testing import FlaskCliRunner
from sqlalchemy import make_url

from app import create_app
from app.settings import Settings
from app.translation.translator import EchoTranslator


@pytest.fixture
def runner(tmp_path: Path) -> FlaskCliRunner:
    database = make_url(f"sqlite:///{tmp_path}/tolk.sqlite")
    return create_app(Settings(database=database), EchoTranslator()).test_cli_runner()


def run(runner: FlaskCliRunner, *arguments: str, given: str | bytes | None = None) -> Result:
    return runner.invoke(args=["jobs", *arguments], input=given)


def submit(runner: FlaskCliRunner, given: str | bytes, *options: str) -> Result:
    return run(runner, "submit", "-", "--source", "fr", "--target", "en", *options, given=given)


def test_a_file_becomes_a_job_that_can_be_followed_to_its_end(runner: FlaskCliRunner) -> None:
    submitted = submit(runner, "".join(f"Texte {number}.\n" for number in range(4_100)))
    job_id = submitted.stdout.strip()
    assert "0 of 4100" in run(runner, "list").stdout
    assert "status: QUEUED" in run(runner, "show", job_id).stdout
    assert "CANCELLED" in run(runner, "cancel", job_id).stdout
    waited = run(runner, "wait", job_id)
    assert (waited.exit_code, "The job is CANCELLED." in waited.stderr) == (1, True)
    assert "4100 texts are left" in run(runner, "retry", job_id).stdout
    rows = run(runner, "download", job_id).stdout.splitlines()
    assert (rows[0], rows[4_100], len(rows)) == ("text\ttranslation\terror", "Texte 4099.\t\t", 4_101)
    assert run(runner, "purge").exit_code == 0


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("Bonjour.\n", ("--key", "nobody"), "There is no key 'nobody'"),
        ("Bonjour.\n", ("--model", "none"), "none"),
        (b"\xff\xfe\n", (), "UTF-8"),
        ("", (), "no texts"),
    ],
)
def test_what_cannot_be_submitted_is_said_and_nothing_is_left_running(
    runner: FlaskCliRunner, given: str | bytes, options: tuple[str, ...], message: str
) -> None:
    failed = submit(runner, given, *options)
    assert failed.exit_code == 1
    assert message in failed.stderr
    listed = run(runner, "list").stdout
    assert "OPEN" not in listed
    assert "QUEUED" not in listed


def test_nobody_elses_job_is_shown(runner: FlaskCliRunner) -> None:
    runner.invoke(args=["keys", "create", "someone"])
    job_id = submit(runner, "Bonjour.\n", "--key", "someone").stdout.strip()
    assert "There is no job" in run(runner, "show", job_id).stderr
    assert job_id in run(runner, "show", job_id, "--key", "someone").stdout


def test_keys_have_different_webhook_secrets(runner: FlaskCliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.invoke(args=["keys", "create", "someone"])
    assert "TOLK_WEBHOOK_SECRET" in run(runner, "webhook-secret").stderr
    monkeypatch.setenv("TOLK_WEBHOOK_SECRET", "a long and random secret")
    secrets = {run(runner, "webhook-secret", *name).stdout for name in ((), ("someone",))}
    assert len(secrets) == 2
    assert all(each.startswith("whsec_") for each in secrets)
