"""Rows of norm 1 in float32, as embeddings are compared."""

from .unit_rows import unit_rows

__all__ = ["unit_rows"]
