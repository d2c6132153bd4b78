"""Fused self-self attention for CUDA and ROCm, in Triton."""

from .launch import pays, run, triton_attention, why_not
from .pairs import pairs_triton, pays_pairs, why_not_pairs

__all__ = ["pairs_triton", "pays", "pays_pairs", "run", "triton_attention", "why_not", "why_not_pairs"]
