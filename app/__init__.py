"""The web tier: a GraphQL API over Flask that hands every translation to a Translator."""

from __future__ import annotations

import atexit
import logging
import logging.config
import os
import sys
from typing import Any
from urllib.parse import quote

from flask import Flask, request

from app import cli, routes
from app.database.transactions import Database
from app.monitoring.recent_errors import RecentErrors
from app.monitoring.traces import Traces
from app.settings import Settings
from app.translation.translator import EchoTranslator, Translator
from app.web import errors, headers, origins, request_log
from tasks.environment import SettingsError
from tasks.registry.entry import RegistryError
from tasks.registry.file import RegistryFile
from telemetry import tracing

# Of whole URLs: it is the path that counts, for whoever asks chooses host and query. With a comma it would be two.
UNTRACED = "^[^/?#]*//[^/?#]*/(?:(?:healthz|readyz|metrics)(?=[?]|$)|static/)"

log = logging.getLogger(__name__)


def create_app(
    settings: Settings | None = None, translator: Translator | None = None, recent_errors: RecentErrors | None = None
) -> Flask:
    """The WSGI application. Who gives no settings is a server: they come from the environment, and so does the log.

    Who gives a translator may give the errors that it tells other web processes of, too.
    Raises RegistryError for a models.toml that cannot be used; where the environment is at fault, the process ends
    with one sentence.
    """
    if settings is None:
        return _create_from_environment(translator, recent_errors)
    models = RegistryFile(settings.models)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["LOG_TEXTS"] = settings.log_texts
    app.jinja_env.globals["graphiql"] = settings.graphiql  # whether pages link to it
    # It would log every error of a caller with a traceback, texts included. Ours are logged in errors.py.
    logging.getLogger("graphql_server.execution").disabled = True
    recent_errors = recent_errors or RecentErrors()
    if translator is None:
        translator = _build_translator(settings, models, recent_errors)
        atexit.register(translator.close)
    errors.register(app)
    app.extensions["database"] = database = Database(settings.database)
    app.extensions["traces"] = traces = Traces(settings.traces) if settings.traces else None
    metrics = None
    if settings.metrics is not None:
        from app.monitoring.metrics import WebMetrics  # its client reads the environment as soon as it is imported

        metrics = WebMetrics(translator.status, settings.metrics, settings.metrics_files)
    request_log.register(app, traces, metrics)
    routes.register(app, settings, models, translator, database, metrics, recent_errors)
    headers.register(app)
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
    app.before_request(_conceal)  # after the instrumentation's own, which calls its hook too early
    SQLAlchemyInstrumentor().instrument(skip_dep_check=True)  # it knows no SQLAlchemy later than 2.0


def _conceal() -> None:
    """A query may hold texts. And where nothing is served a path may be anything, so it is no name of a span."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan

    span, path = trace.get_current_span(), quote(request.path)
    span.set_attributes({"http.target": path, "http.url": path, "url.query": "", "url.full": path})
    if request.url_rule is None and isinstance(span, ReadableSpan):
        span.update_name(span.name.partition(" ")[0])  # of which the method is left


def _build_translator(settings: Settings, models: RegistryFile, recent_errors: RecentErrors) -> Translator:
    if settings.translator == "echo":
        return EchoTranslator()
    from app.broker.rpc import CeleryTranslator  # the echo needs no Celery

    return CeleryTranslator.from_config(models, errors=recent_errors.counts)
