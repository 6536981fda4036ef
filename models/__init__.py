"""Translation models: a library of its own. `models.local` is the way in."""
