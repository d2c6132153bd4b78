"""Fused self-self attention for CUDA and ROCm, in Triton."""

from .launch import triton_attention, why_not

__all__ = ["triton_attention", "why_not"]
