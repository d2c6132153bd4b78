"""The operations of GEM on tensors, each in a folder with its reference and its fast backends.

Nothing here knows of models or files. Importing this package never touches a device.
"""

from .attention import self_self_attention
from .decoding import decode_heatmaps, decode_labels

__all__ = ["decode_heatmaps", "decode_labels", "self_self_attention"]
