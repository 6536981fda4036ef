"""The models on offer, as models.toml has them. Standard library only."""
