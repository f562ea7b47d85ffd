"""Whether training works, seen without labels: numbers of features or embeddings, and what they can be at all."""

from barlow.diagnostics.catalogue import DIAGNOSTICS, Reading, diagnose, told_of
from barlow.diagnostics.collapse import embedding_statistics, healthy_ranges
from barlow.diagnostics.geometry import (
    alignment,
    correlations,
    cosine_between_views,
    dead,
    per_dimension_std,
    uniformity,
)
from barlow.diagnostics.rank import (
    alpha_req,
    effective_rank,
    lidar,
    participation_ratio,
    rankme,
    stable_rank,
    top_eigenvalue_share,
)

__all__ = [
    "DIAGNOSTICS",
    "Reading",
    "alignment",
    "alpha_req",
    "correlations",
    "cosine_between_views",
    "dead",
    "diagnose",
    "effective_rank",
    "embedding_statistics",
    "healthy_ranges",
    "lidar",
    "participation_ratio",
    "per_dimension_std",
    "rankme",
    "stable_rank",
    "told_of",
    "top_eigenvalue_share",
    "uniformity",
]
