"""Self-self attention (GEM, Eq. 3-7) and the attention of unchanged blocks, each with its backends."""

from .query_key import query_key_attention
from .self_self import self_self_attention

__all__ = ["query_key_attention", "self_self_attention"]
