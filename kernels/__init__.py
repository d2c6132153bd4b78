"""The operations of GEM on tensors, each in a folder with its reference and its fast backends.

Nothing here knows of models or files. Importing this package never touches a device.
"""

if __name__ != "gem_fast.kernels":
    # With the checkout on Python's path, others would take this folder for Hugging Face's package of that name.
    raise ImportError("this folder is the package gem_fast.kernels: install the project, and import that")


from .attention import pair_attention, query_key_attention, self_self_attention
from .decoding import decode_heatmaps, decode_labels
from .layer_norm import layer_norm_and_temperature
from .linear import linear

__all__ = [
    "decode_heatmaps",
    "decode_labels",
    "layer_norm_and_temperature",
    "linear",
    "pair_attention",
    "query_key_attention",
    "self_self_attention",
]
