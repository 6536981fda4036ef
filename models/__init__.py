"""Translation models, a library that works without the service. Its entry point is `models.local`."""
