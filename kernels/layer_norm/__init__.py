"""LayerNorm together with GEM's adaptive temperature, which is a mean of the norms of its output."""

from .layer_norm import layer_norm_and_temperature

__all__ = ["layer_norm_and_temperature"]
