"""Reading environment variables, and refusing wrong values."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import environment
from tasks.environment import SettingsError


@pytest.mark.parametrize(
    ("value", "expected"),
    [("4000000000", 4 * 10**9), ("4GB", 4 * 10**9), ("512MiB", 512 * 2**20), ("3 KB", 3000), ("2T", 2 * 10**12)],
)
def test_bytes_may_have_a_unit(value: str, expected: int) -> None:
    assert environment.size({"TOLK_MEMORY": value}, "TOLK_MEMORY") == expected


@pytest.mark.parametrize("value", ["0", "0GB", "-1", "1.5GB", "4XB", "GB", "4 G B"])
def test_what_is_no_number_of_bytes_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=f"^TOLK_MEMORY: a number of bytes, .* was expected, not '{value}'"):
        environment.size({"TOLK_MEMORY": value}, "TOLK_MEMORY")


def test_what_is_not_set_has_no_value_and_what_is_empty_neither() -> None:
    for environ in ({}, {"NAME": "", "NAME_FILE": ""}):
        assert environment.size(environ, "NAME") is None
        assert environment.path(environ, "NAME") is None
        assert environment.secret(environ, "NAME") is None
        assert environment.matching(environ, "NAME", "x", "an x") is None
        assert environment.choice(environ, "NAME", ("x", "y"), "y") == "y"
        assert environment.whole_number(environ, "NAME", 7) == 7


def test_of_a_list_the_default_is_for_what_is_not_set_alone() -> None:
    assert environment.items({}, "NAME", "a, b") == ("a", "b")
    assert environment.items({"NAME": ""}, "NAME", "a, b") == ()
    assert environment.items({"NAME": " c,,d "}, "NAME", "a, b") == ("c", "d")


def test_a_secret_is_in_the_variable_or_in_a_file_and_no_message_quotes_it(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    assert environment.secret({"NAME": "s3cret"}, "NAME") == "s3cret"
    assert environment.secret({"NAME_FILE": str(file)}, "NAME") == "s3cret"
    with pytest.raises(SettingsError, match=r"^NAME: .* expected, not both") as refused:
        environment.secret({"NAME": "s3cret", "NAME_FILE": str(file)}, "NAME")
    assert "s3cret" not in str(refused.value)
