"""The web tier: a GraphQL API over Flask that hands every translation to a Translator."""

from __future__ import annotations

import atexit
import logging
import logging.config
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from flask import Flask, request
from typing_extensions import override

from app import cli, routes
from app.accounts.ledger import Ledger
from app.accounts.repeats import Repeats
from app.database.transactions import Database
from app.jobs import store
from app.monitoring.recent_errors import RecentErrors
from app.monitoring.traces import Traces
from app.settings import Settings
from app.translation.translator import EchoTranslator, Translator
from app.web import errors, headers, origins, request_log, unread
from tasks.environment import SettingsError
from tasks.registry.entry import RegistryError
from tasks.registry.file import RegistryFile
from telemetry import tracing

# A pattern for whole URLs. Only the path decides, because the client chooses the host and the query. A comma would
# split the pattern into two.
UNTRACED = "^[^/?#]*//[^/?#]*/(?:(?:healthz|readyz|metrics)(?=[?]|$)|static/)"

log = logging.getLogger(__name__)


class WebApplication(Flask):
    """A Flask application of ordinary functions only."""

    @override
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func  # Flask would look six times a request whether one is a coroutine


def create_app(
    settings: Settings | None = None, translator: Translator | None = None, recent_errors: RecentErrors | None = None
) -> Flask:
    """The WSGI application. Without settings, the application configures itself and its log from the environment, as a
    server does.

    `translator` replaces the one that the settings ask for; `recent_errors` are then the errors that it reports to
    other web processes.

    Raises RegistryError if models.toml cannot be used. Without settings, that and a wrong setting end the process with
    one sentence.
    """
    if settings is None:
        return _create_from_environment(translator, recent_errors)
    models = RegistryFile(settings.models)
    app = WebApplication(__name__)
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_call_bytes
    app.config["LOG_TEXTS"] = settings.log_texts
    app.jinja_env.globals["graphiql"] = settings.graphiql  # whether pages link to GraphiQL
    recent_errors = recent_errors or RecentErrors()
    app.extensions["database"] = database = Database(settings.database)
    ledger = Ledger(database)
    repeats = Repeats(ledger)
    if translator is None:
        translator = _build_translator(settings, models, recent_errors, repeats)
        atexit.register(translator.close)
    errors.register(app)
    app.extensions["traces"] = traces = Traces(settings.traces) if settings.traces else None
    metrics = None
    if settings.metrics is not None:
        from app.monitoring.metrics import WebMetrics  # prometheus_client reads the environment at its import

        jobs = partial(database.run, store.counts)
        metrics = WebMetrics(translator.status, settings.metrics, settings.metrics_files, jobs)
    request_log.register(app, traces, metrics)
    routes.register(app, settings, models, translator, database, ledger, repeats, metrics, recent_errors)
    headers.register(app)
    unread.register(app)
    for command in cli.COMMANDS:
        app.cli.add_command(command)
    origins.register(app, settings.origins)
    return app


def _create_from_environment(translator: Translator | None, recent_errors: RecentErrors | None) -> Flask:
    try:
        settings = Settings.from_env(os.environ)
        logging.config.dictConfig(settings.log_config)
        app = create_app(settings, translator, recent_errors)
    except (SettingsError, RegistryError) as error:
        sys.exit(f"tolk: {error}")
    if settings.export_spans:
        _export_spans(app)
    log.info("%s", settings)
    return app


def _export_spans(app: Flask) -> None:
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    tracing.start("tolk-web")
    instrumentor: Any = FlaskInstrumentor()
    instrumentor.instrument_app(app, excluded_urls=UNTRACED)
    app.before_request(_conceal)  # it must run after the instrumentation, whose own hook comes too early
    SQLAlchemyInstrumentor().instrument(skip_dep_check=True)  # the check rejects any SQLAlchemy later than 2.0


def _conceal() -> None:
    """Removes from the span what the client may have put there: the query, which may hold texts, and from the span's
    name a path that no route serves, which may be anything."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan

    span, path = trace.get_current_span(), quote(request.path)
    span.set_attributes({"http.target": path, "http.url": path, "url.query": "", "url.full": path})
    if request.url_rule is None and isinstance(span, ReadableSpan):
        span.update_name(span.name.partition(" ")[0])  # the method alone


def _build_translator(
    settings: Settings, models: RegistryFile, recent_errors: RecentErrors, repeats: Repeats
) -> Translator:
    if settings.translator == "echo":
        return EchoTranslator()
    from app.broker.rpc import CeleryTranslator  # imported here because the echo needs no Celery

    return CeleryTranslator.from_config(models, errors=recent_errors.counts, waiting=repeats)
