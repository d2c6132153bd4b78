"""The operations of GEM on tensors, each in a folder with its reference and its fast backends.

Nothing here knows of models or files. Importing this package never touches a device.
"""

# By whole names: in the repository's own folder transformers imports this as `kernels`, and nothing is loaded twice.

from gem_fast.kernels.activation import quick_gelu, silu_gate
from gem_fast.kernels.attention import pair_attention, query_key_attention, self_self_attention
from gem_fast.kernels.decoding import decode_heatmaps, decode_labels
from gem_fast.kernels.int8 import int8_linear, int8_mlp
from gem_fast.kernels.layer_norm import add_layer_norm, layer_norm_and_temperature
from gem_fast.kernels.linear import linear, prepacked
from gem_fast.kernels.unit_rows import unit_rows

__all__ = [
    "add_layer_norm",
    "decode_heatmaps",
    "decode_labels",
    "int8_linear",
    "int8_mlp",
    "layer_norm_and_temperature",
    "linear",
    "pair_attention",
    "prepacked",
    "query_key_attention",
    "quick_gelu",
    "self_self_attention",
    "silu_gate",
    "unit_rows",
]
