"""The web tier's Celery object, by which it finds the broker: the one import of celeryconfig in app/."""

from __future__ import annotations

from celery import Celery


def configured(broker: str | None = None) -> Celery:
    """For the broker that celeryconfig names unless a URL is given. It publishes and looks, and keeps no results."""
    import celeryconfig  # it reads the environment, which importing this module must not

    celery = Celery("tolk", broker=broker, backend="disabled://", set_as_current=False)
    celery.config_from_object(celeryconfig)
    return celery
