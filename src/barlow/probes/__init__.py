"""What the protocols of `barlow.protocols` are made of: features, splits, predictions and their intervals."""

from barlow.probes.features import FeatureSet
from barlow.probes.intervals import Score
from barlow.probes.metrics import Predicted, measure

__all__ = ["FeatureSet", "Predicted", "Score", "measure"]
