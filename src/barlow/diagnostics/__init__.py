"""Whether training works, seen without labels: statistics of a batch of features or embeddings, and healthy ranges."""

from barlow.diagnostics.collapse import concerns, embedding_statistics, healthy_ranges

__all__ = ["concerns", "embedding_statistics", "healthy_ranges"]
