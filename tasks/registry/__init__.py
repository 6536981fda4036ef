"""The models on offer, as models.toml lists them. It needs no Celery, no Flask and no torch."""
