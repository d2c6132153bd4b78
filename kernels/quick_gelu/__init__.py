"""QuickGELU, the activation of OpenAI's CLIP."""

from .quick_gelu import quick_gelu

__all__ = ["quick_gelu"]
