"""The settings of the web tier. Only this module in app/ reads the environment, through tasks.environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from tasks import environment
from tasks.contract.names import MESSAGE_BYTES
from tasks.environment import SettingsError, choice, switch, whole_number
from telemetry import logs
from telemetry.address import Address

REPOSITORY = Path(__file__).parent.parent
DEFAULT_TIMEOUT = 10.0  # seconds; part of the GraphQL schema, so not a setting
DOCUMENT_BYTES = 64 * 1024
# What one process takes on at once.
IN_FLIGHT = 96  # translations
REQUESTS = IN_FLIGHT + 16  # GraphQL requests of any kind
SCRAPES = 2  # of the metrics
THREADS = REQUESTS + 16  # the others refuse further requests, and answer health checks
IN_MEMORY = URL.create("sqlite")  # a database that lives as long as its process
# In lower case, and without the port that the scheme implies.
ORIGIN = r"(?!.*(https:.*:443|http:.*:80)$)https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?"


@dataclass(frozen=True, slots=True)
class Settings:
    """`models` is the path of models.toml; timeouts are in seconds, lengths of texts in Unicode characters.

    An ended job is kept for `job_days`. A chunk of a job is lost if it is not back in `job_lease` seconds.

    `flower` is the address at which a browser finds Flower. `origins` are the sites whose pages may use /graphql.

    `traces` is the directory for the traces of the latest requests, `metrics` the address that Prometheus scrapes, and
    `metrics_files` the directory in which the processes of one server share their counters. `export_spans` says whether
    OpenTelemetry's variables ask for spans to be exported.
    """

    translator: Literal["celery", "echo"] = "celery"
    models: Path = environment.MODELS
    max_texts: int = 128
    max_text_characters: int = 20_000
    max_request_characters: int = 100_000
    max_timeout: int = 60
    job_days: int = 7
    job_lease: int = 300
    host: str = "127.0.0.1"
    port: int = 8000
    flower: str | None = None
    database: URL = IN_MEMORY
    introspection: bool = True
    graphiql: bool = True
    origins: tuple[str, ...] = ()
    log_texts: bool = False
    log_format: logs.Form = "text"
    log_level: str = "info"
    traces: Path | None = None
    metrics: Address | None = None
    metrics_files: Path | None = None
    export_spans: bool = False

    @property
    def log_config(self) -> dict[str, Any]:
        """The configuration of the log, for logging.config.dictConfig."""
        return logs.config(self.log_format, self.log_level, {"gunicorn.error": self.log_level, "alembic": "warning"})

    @property
    def max_body_bytes(self) -> int:
        """The limit for a request's body, in bytes: room for the GraphQL document and the longest texts in JSON's
        longest spelling, 12 bytes a character."""
        return 12 * self.max_request_characters + 8 * self.max_texts + DOCUMENT_BYTES

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in the environment. An unset or empty variable means the default. Raises SettingsError."""
        settings = cls(
            translator=choice(environ, "TOLK_TRANSLATOR", ("celery", "echo"), cls().translator),
            models=environment.models(environ),
            max_texts=whole_number(environ, "TOLK_MAX_TEXTS", cls().max_texts),
            max_text_characters=whole_number(environ, "TOLK_MAX_TEXT_CHARACTERS", cls().max_text_characters),
            max_request_characters=whole_number(environ, "TOLK_MAX_REQUEST_CHARACTERS", cls().max_request_characters),
            max_timeout=whole_number(environ, "TOLK_MAX_TIMEOUT", cls().max_timeout, least=int(DEFAULT_TIMEOUT)),
            job_days=whole_number(environ, "TOLK_JOB_DAYS", cls().job_days, most=3650),
            job_lease=whole_number(environ, "TOLK_JOB_LEASE", cls().job_lease, most=86_400),
            host=environ.get("TOLK_HOST") or cls().host,
            port=whole_number(environ, "PORT", cls().port, least=0, most=65_535),
            flower=environment.matching(environ, "TOLK_FLOWER_URL", "https?://.*", "the address of a page"),
            database=_database(environ),
            introspection=switch(environ, "TOLK_INTROSPECTION", cls().introspection),
            graphiql=switch(environ, "TOLK_GRAPHIQL", cls().graphiql),
            origins=_origins(environ, "TOLK_ORIGINS"),
            log_texts=switch(environ, "TOLK_LOG_TEXTS", cls().log_texts),
            log_format=environment.log_format(environ),
            log_level=environment.log_level(environ) or cls().log_level,
            traces=_traces(environ),
            metrics=environment.metrics(environ),
            metrics_files=environment.path(environ, "PROMETHEUS_MULTIPROC_DIR"),
            export_spans=environment.export_spans(environ),
        )
        if settings.metrics is not None and settings.metrics.port == settings.port:
            raise SettingsError(f"TOLK_METRICS: another port than that of the service, {settings.port}, was expected.")
        if settings.max_body_bytes > MESSAGE_BYTES:  # a message spells texts as JSON too
            raise SettingsError(
                "TOLK_MAX_REQUEST_CHARACTERS, TOLK_MAX_TEXTS: requests that make a message of at most "
                f"{MESSAGE_BYTES} bytes were expected, not of {settings.max_body_bytes}."
            )
        return settings


def _database(environ: Mapping[str, str]) -> URL:
    address = environment.secret(environ, "DATABASE_URL")
    if address is None:
        return URL.create("sqlite", database=str(REPOSITORY / ".run" / "tolk.sqlite"))
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        url = URL.create("")
    drivers = {"sqlite": "sqlite", "postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
    backend = url.drivername.partition("+")[0]
    if backend not in drivers:  # the message leaves out the value, which may hold a password
        raise SettingsError("DATABASE_URL: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME was expected.")
    return url.set(drivername=drivers[backend])


def _traces(environ: Mapping[str, str]) -> Path | None:
    value = environ.get("TOLK_TRACES") or str(REPOSITORY / ".run" / "traces")
    return None if value == "off" else Path(value)


def _origins(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Origins as browsers send them (RFC 6454, section 6.2)."""
    origins = environment.items(environ, name)
    for origin in origins:
        if origin == "*":
            raise SettingsError(
                f"{name}: origins were expected, not '*', by which any page could translate at its readers' expense."
            )
        if not re.fullmatch(ORIGIN, origin):
            raise SettingsError(
                f"{name}: origins as in https://host or https://host:8443 were expected, not {origin!r}."
            )
    return origins
