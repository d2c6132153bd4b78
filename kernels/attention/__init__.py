"""Self-self attention (GEM, Eq. 3-7): the operation, its reference and its backends."""

from .dispatch import self_self_attention
from .query_key import query_key_attention
from .registry import backends, choose_backend, find_backend, why_not

__all__ = [
    "backends",
    "choose_backend",
    "find_backend",
    "query_key_attention",
    "self_self_attention",
    "why_not",
]
