"""The log: one line for each event, as JSON or as text, with the id of the request that it belongs to."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal, TextIO

from typing_extensions import override

from telemetry.combining import Combining

Form = Literal["json", "text"]
FORMS: tuple[Form, ...] = ("json", "text")
# Control characters, but for tabs and line breaks, and what they are written as.
CONTROL = {code: ascii(chr(code))[1:-1] for code in (*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x2029)}
LEVELS = ("debug", "info", "warning", "error")

# The id of the request that the current context serves, for all that it logs.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def default_form() -> Form:
    """ "text" if standard error is a terminal, otherwise "json"."""
    return "text" if sys.stderr.isatty() else "json"


def config(form: Form, level: str, loggers: Mapping[str, str], file: str | None = None) -> dict[str, Any]:
    """A configuration for logging.config.dictConfig: messages from `level` on, or for the loggers in `loggers` from
    their own level on, go to standard error, or to a file if one is given."""
    stderr = {"class": "telemetry.logs.StderrHandler"}
    output = stderr if file is None else {"class": "logging.handlers.WatchedFileHandler", "filename": file}
    formatter = {"json": JsonFormatter, "text": TextFormatter}[form]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {form: {"()": formatter}},
        "handlers": {"output": {**output, "formatter": form}},
        "root": {"level": level.upper(), "handlers": ["output"]},
        "loggers": {
            name: {"level": least.upper(), "handlers": [], "propagate": True} for name, least in loggers.items()
        },
    }


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes lines to standard error. No thread waits while another one writes."""

    def __init__(self) -> None:
        super().__init__()
        self._combining = Combining(self._write)

    @override
    def handle(self, record: logging.LogRecord) -> bool:  # logging's own holds a lock for as long as `emit` takes
        self.emit(record)
        return True

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._combining.add(self.format(record) + self.terminator)
        except Exception:  # noqa: BLE001 - as in logging.StreamHandler: who logs must not fail for it
            self.handleError(record)

    def _write(self, lines: Sequence[str]) -> None:
        self.stream.write("".join(lines))
        self.stream.flush()


class JsonFormatter(logging.Formatter):
    """Writes one JSON object per line: time (UTC), level, logger, message, request_id, and the record's `fields`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request := request_id.get()) is not None:
            line["request_id"] = request
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Writes the same for people: `2026-11-25 21:00:00,123 INFO app: message name=value [request id]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    @override
    def format(self, record: logging.LogRecord) -> str:
        # What others sent must not look like a line of its own, or command a terminal.
        return super().format(record).translate(CONTROL).replace("\n", "\n  ")

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:  # it comes before a traceback
        words = [super().formatMessage(record)]
        words += [f"{name}={value}" for name, value in getattr(record, "fields", {}).items()]
        if (request := request_id.get()) is not None:
            words.append(f"[{request}]")
        return " ".join(words)
