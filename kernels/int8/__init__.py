"""Linear layers in int8: weights rounded once, a scale an output, and activations in the call, a scale a token."""

from .entries import int8_linear, int8_mlp
from .weight import PANEL, Int8Weight, quantize_weight

__all__ = ["PANEL", "Int8Weight", "int8_linear", "int8_mlp", "quantize_weight"]
