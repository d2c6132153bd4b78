"""Projections for the native CPU kernel, and its error."""

import torch
from gem_fast.kernels.attention.cpu import cpu

QKV = (0, 1, 2)


def make_qkv(B, N, H, D, seed=0, dtype=torch.float32):
    """Projections whose tokens have norms of 0.2 to 5, as real ones do."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(B, N, 3, H, D, generator=generator, dtype=torch.float64)
    norms = torch.empty(B, N, 3, H, 1, dtype=torch.float64).uniform_(0.2, 5, generator=generator)
    return (qkv / D**0.5 * norms).to(dtype)


def native(qkv, c, iterations=1, projections=QKV, path=None):
    return cpu(qkv, c, iterations=iterations, projections=projections, path=path)


def error(result, truth):
    return ((result.double() - truth).norm() / truth.norm()).item()
