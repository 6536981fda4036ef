"""The pages for people: the translator, and the status of the service."""

from __future__ import annotations

from flask import render_template

from app.settings import Settings
from app.translation.translator import Translator
from tasks.registry.file import RegistryFile
from tasks.registry.ways import Registry


def translate(settings: Settings, models: RegistryFile, translator: Translator) -> str:
    """`/`: translates while its reader types. It offers the registry's pairs, marks those that no worker serves, and
    says what its models are good for."""
    registry = models.current()
    return render_template(
        "index.html",
        pairs=_pairs(registry, translator),
        notes=[each for each in registry.models.values() if each.note],
        limit=min(settings.max_text_characters, settings.max_request_characters),
        max_texts=settings.max_texts,
        max_timeout=settings.max_timeout,
    )


def jobs(models: RegistryFile, translator: Translator) -> str:
    """`/jobs`: submits jobs between the registry's pairs, and shows the reader's jobs, which its script gets from the
    API."""
    return render_template("jobs.html", pairs=_pairs(models.current(), translator))


def status(settings: Settings) -> str:
    """`/status`: shows queues, workers and recent errors, which its script gets from the API."""
    return render_template("status.html", flower_url=settings.flower)


def _pairs(registry: Registry, translator: Translator) -> list[tuple[str, str, bool]]:
    status = translator.known_status()
    return [(way.source, way.target, status.can_translate(way, registry)) for way in registry.ways]
