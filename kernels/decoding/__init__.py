"""Score decoding: from patch scores to heat maps and labels at the output size."""

from .choice import find_decoder
from .heatmaps import decode_heatmaps
from .labels import decode_labels

__all__ = ["decode_heatmaps", "decode_labels", "find_decoder"]
