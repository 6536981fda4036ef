"""The web tier's Celery app, which knows the broker. Only this module in app/ imports celeryconfig."""

from __future__ import annotations

from celery import Celery


def configured(broker: str | None = None) -> Celery:
    """A Celery app for the broker at this URL, by default the one that celeryconfig names. It stores no results."""
    import celeryconfig  # imported here because it reads the environment

    celery = Celery("tolk", broker=broker, backend="disabled://", set_as_current=False)
    celery.config_from_object(celeryconfig)
    return celery
