"""A Marian Transformer from sentence pairs: cleaning, vocabulary, training, landing, figures (docs/training.md)."""
