"""LayerNorm together with what stands around it: the residual sum before it and GEM's adaptive temperature."""

from .layer_norm import add_layer_norm, layer_norm_and_temperature
from .normed import Normed

__all__ = ["Normed", "add_layer_norm", "layer_norm_and_temperature"]
