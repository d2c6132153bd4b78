"""Self-self attention (GEM, Eq. 3-7): the operation, its reference and its backends."""

from .dispatch import backends, choose_backend, self_self_attention

__all__ = ["backends", "choose_backend", "self_self_attention"]
