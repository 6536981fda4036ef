"""Readers for environment variables, and the variables that both the web tier and the workers read.

`environ` is the environment, `name` the variable. An unset or empty variable means the default. A value that does not
fit raises SettingsError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from telemetry import logs, tracing
from telemetry.address import Address

MODELS = Path(__file__).parent.parent / "models.toml"

C = TypeVar("C", bound=str)
D = TypeVar("D")


class SettingsError(Exception):
    """An environment variable has an unusable value; the message names the variable and says what was expected."""


def choice(environ: Mapping[str, str], name: str, choices: Sequence[C], default: D) -> C | D:
    """The variable's value, which has to be one of `choices`."""
    value = environ.get(name)
    if not value:
        return default
    for each in choices:
        if value == each:
            return each
    raise SettingsError(f"{name}: {', '.join(choices[:-1])} or {choices[-1]} was expected, not {value!r}.")


def switch(environ: Mapping[str, str], name: str, default: bool) -> bool:
    """True for `on`, False for `off`."""
    return choice(environ, name, ("on", "off"), "on" if default else "off") == "on"


def matching(environ: Mapping[str, str], name: str, pattern: str, expected: str) -> str | None:
    """The variable's value, which has to match `pattern` as a whole; None if it is unset.

    `expected` describes the pattern in the error message.
    """
    value = environ.get(name) or None
    if value is not None and not re.fullmatch(pattern, value):
        raise SettingsError(f"{name}: {expected} was expected, not {value!r}.")
    return value


def whole_number(environ: Mapping[str, str], name: str, default: int, *, least: int = 1, most: int = 10**9) -> int:
    """The variable's value as an int from `least` to `most`."""
    value = environ.get(name) or str(default)
    if not (value.isascii() and value.isdigit() and len(value) <= 20 and least <= int(value) <= most):
        raise SettingsError(f"{name}: a whole number from {least} to {most} was expected, not {value!r}.")
    return int(value)


def size(environ: Mapping[str, str], name: str) -> int | None:
    """A number of bytes, from a whole number with an optional unit, such as 4GB or 512MiB; None if it is unset."""
    value = environ.get(name)
    if not value:
        return None
    found = re.fullmatch(r"(\d+) ?(?:([KMGT])(i?))?B?", value)
    if found is None or not int(found[1]):
        raise SettingsError(
            f"{name}: a number of bytes, such as 4000000000, 4GB or 512MiB, was expected, not {value!r}."
        )
    step, power = 1024 if found[3] else 1000, " KMGT".index(found[2] or " ")
    return int(found[1]) * int(step**power)


def path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(value) if (value := environ.get(name)) else None


def items(environ: Mapping[str, str], name: str, default: str = "") -> tuple[str, ...]:
    """The items of a list separated by commas. An empty variable, unlike an unset one, means an empty list."""
    return tuple(filter(None, map(str.strip, environ.get(name, default).split(","))))


def secret(environ: Mapping[str, str], name: str) -> str | None:
    """The value of variable NAME, or the content of the file that NAME_FILE names; None if both are unset.

    Docker passes secrets as such files. No error message quotes the value.
    """
    value, file = environ.get(name) or None, environ.get(f"{name}_FILE") or None
    if file is None:
        return value
    if value is not None:
        raise SettingsError(f"{name}: either the variable or {name}_FILE was expected, not both.")
    try:
        value = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE: a file that can be read was expected, not {file!r} ({error}).") from error
    if not value:
        raise SettingsError(f"{name}_FILE: a file with a value was expected, and {file!r} is empty.")
    return value


def models(environ: Mapping[str, str]) -> Path:
    """The path of models.toml."""
    return path(environ, "TOLK_MODELS") or MODELS


def metrics(environ: Mapping[str, str]) -> Address | None:
    """The address at which metrics are served; None if they are not served."""
    value = environ.get("TOLK_METRICS")
    try:
        return Address.parse(value) if value else None
    except ValueError as error:
        raise SettingsError(f"TOLK_METRICS: expected {error}.") from error


def log_format(environ: Mapping[str, str]) -> logs.Form:
    return choice(environ, "TOLK_LOG_FORMAT", logs.FORMS, logs.default_form())


def log_level(environ: Mapping[str, str]) -> str | None:
    return choice(environ, "TOLK_LOG_LEVEL", logs.LEVELS, None)


def export_spans(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for the export of spans."""
    try:
        return tracing.wanted(environ)
    except tracing.TracingError as error:
        raise SettingsError(str(error)) from error
