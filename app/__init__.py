"""The web tier: a GraphQL API over Flask that hands every translation to a Translator."""

from __future__ import annotations

import atexit
import logging
import os
import sys

from flask import Flask

from app import cli, errors, origins, views
from app.database import Database
from app.settings import Settings, SettingsError
from app.translator import EchoTranslator, Translator
from tasks.registry import RegistryError, RegistryFile

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, translator: Translator | None = None) -> Flask:
    """The WSGI application. Who gives no settings is a server: they come from the environment, and so does the log.

    Raises RegistryError for a models.toml that cannot be used; where the environment is at fault, the process ends
    with one sentence.
    """
    if settings is None:
        return _create_from_environment(translator)
    models = RegistryFile(settings.models)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["LOG_TEXTS"] = settings.log_texts
    # It would log every error of a caller with a traceback, texts included. Ours are logged in errors.py.
    logging.getLogger("graphql_server.execution").disabled = True
    if translator is None:
        translator = _build_translator(settings, models)
        atexit.register(translator.close)
    errors.register(app)
    app.extensions["database"] = database = Database(settings.database)
    views.register(app, settings, models, translator, database)
    for group in cli.GROUPS:
        app.cli.add_command(group)
    origins.register(app, settings.origins)
    return app


def _create_from_environment(translator: Translator | None) -> Flask:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings.from_env(os.environ)
        app = create_app(settings, translator)
    except (SettingsError, RegistryError) as error:
        sys.exit(f"tolk: {error}")
    log.info("%s", settings)
    return app


def _build_translator(settings: Settings, models: RegistryFile) -> Translator:
    if settings.translator == "echo":
        return EchoTranslator()
    from app.rpc import CeleryTranslator  # the echo needs no Celery

    return CeleryTranslator.from_config(models)
