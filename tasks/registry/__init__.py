"""The models on offer, as models.toml lists them. Standard library only."""
