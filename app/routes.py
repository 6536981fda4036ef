"""The routes: which view answers which path."""

from __future__ import annotations

import atexit
import threading
from functools import partial
from typing import TYPE_CHECKING

from flask import Flask

from app import pages
from app.accounts.keys import KeyRing
from app.accounts.ledger import Ledger
from app.accounts.repeats import Repeats
from app.database.transactions import Database
from app.downloads import Downloads
from app.graphql import predecessor
from app.graphql.predecessor import PredecessorGraphQL
from app.graphql.schema import build_schema
from app.graphql.subscriptions import Subscriptions
from app.graphql.view import GraphQL
from app.jobs.submission import Jobs
from app.jobs.updates import JobUpdates
from app.monitoring.recent_errors import RecentErrors
from app.settings import DOWNLOADS, LISTENERS, REQUESTS, SCRAPES, Settings
from app.translation.translate import abandon
from app.translation.translator import Translator
from app.web import health
from app.web.hangups import Hangups
from app.web.places import bounded
from app.web.streams import Streams, room
from tasks.registry.file import RegistryFile
from text.detection import Detector

if TYPE_CHECKING:
    from app.monitoring.metrics import WebMetrics


def register(
    app: Flask,
    settings: Settings,
    models: RegistryFile,
    translator: Translator,
    database: Database,
    ledger: Ledger,
    repeats: Repeats,
    metrics: WebMetrics | None,
    recent_errors: RecentErrors,
) -> None:
    """Adds the routes to the application."""
    hangups = Hangups(partial(abandon, translator, repeats))
    jobs = Jobs(database)
    keys = KeyRing(database)
    updates = JobUpdates(database)
    streams = Streams(updates.refresh, most=room(LISTENERS))
    app.extensions["streams"] = streams
    atexit.register(streams.close)
    subscriptions = Subscriptions(updates, streams)
    tools = (settings, models, translator, hangups, ledger, repeats, keys, recent_errors, Detector())
    durable = (jobs, subscriptions)
    places = threading.BoundedSemaphore(REQUESTS)
    view = bounded(GraphQL.as_view("graphql", build_schema().graphql_schema, *tools, *durable), places)
    app.add_url_rule("/graphql", view_func=view)
    view = PredecessorGraphQL.as_view("predecessor", predecessor.build_schema().graphql_schema, *tools, *durable)
    view = bounded(view, places)
    app.add_url_rule("/api/graphql", view_func=view)
    app.add_url_rule("/api/graphiql", view_func=view)
    downloads = Downloads(settings, jobs, keys, DOWNLOADS)
    app.add_url_rule("/jobs/<job_id>/translations.<form>", "download", downloads)
    app.add_url_rule("/", "page", partial(pages.translate, settings, models, translator))
    app.add_url_rule("/jobs", "jobs", partial(pages.jobs, models, translator))
    app.add_url_rule("/status", "status", partial(pages.status, settings))
    app.add_url_rule("/healthz", "healthz", health.alive)
    app.add_url_rule("/readyz", "readyz", health.Readiness(translator.check, database))
    if metrics is not None:
        scrapes = threading.BoundedSemaphore(SCRAPES)
        app.add_url_rule("/metrics", "scrape", bounded(lambda: health.scrape(metrics), scrapes))
        health.separate(app, metrics.address.port)
