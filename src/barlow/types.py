"""The array types of the package: shapes are annotations, checked only in tests."""

from jaxtyping import Float, Int64, UInt8
from torch import Tensor

Images = Float[Tensor, "n c h w"]
"""Images in [0, 1] (before normalisation)."""

Features = Float[Tensor, "n f"]
"""Encoder outputs: what probes and users read."""

Embedding = Float[Tensor, "n d"]
"""Projector outputs: what objectives read."""

Pixels = UInt8[Tensor, "n c h w"]
"""Decoded images as they are stored and cross process boundaries."""

Ids = Int64[Tensor, "n"]
"""Sample ids: positions in the sorted listing of the data, stable when a file is quarantined."""

Terms = dict[str, Float[Tensor, ""]]
"""Named, weighted scalar terms of an objective; their sum is the loss."""
