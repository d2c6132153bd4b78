"""Fused self-self attention for CUDA and ROCm, in Triton."""

from .launch import pays, triton_attention, why_not

__all__ = ["pays", "triton_attention", "why_not"]
