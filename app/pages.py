"""The pages for people: the translator, and the status of the service."""

from __future__ import annotations

from flask import render_template

from app.settings import Settings
from app.translation.translator import Translator
from tasks.registry.file import RegistryFile


def translate(settings: Settings, models: RegistryFile, translator: Translator) -> str:
    """`/`: translates while its reader types. It offers the registry's pairs, marks those that no worker serves, and
    says what its models are good for."""
    registry, status = models.current(), translator.known_status()
    return render_template(
        "index.html",
        pairs=[(way.source, way.target, status.can_translate(way, registry)) for way in registry.ways],
        notes=[each for each in registry.models.values() if each.note],
        limit=min(settings.max_text_characters, settings.max_request_characters),
        max_texts=settings.max_texts,
        max_timeout=settings.max_timeout,
    )


def status(settings: Settings) -> str:
    """`/status`: shows queues, workers and recent errors, which its script gets from the API."""
    return render_template("status.html", flower_url=settings.flower)
