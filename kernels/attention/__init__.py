"""Self-self attention (GEM, Eq. 3-7), that of pairs of projections, and that of unchanged blocks."""

from .pairs import pair_attention
from .query_key import query_key_attention
from .self_self import self_self_attention

__all__ = ["pair_attention", "query_key_attention", "self_self_attention"]
