"""Activations that no linear layer's call applies: QuickGELU, that of OpenAI's CLIP, and SiLU as a gate."""

from .quick_gelu import quick_gelu
from .silu_gate import silu_gate

__all__ = ["quick_gelu", "silu_gate"]
