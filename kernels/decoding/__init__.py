"""Score decoding: from patch scores to heat maps and labels at the output size."""

from .heatmaps import decode_heatmaps
from .labels import decode_labels

__all__ = ["decode_heatmaps", "decode_labels"]
