"""Tokens for the tests of LayerNorm, and how far its results are from the truth."""

import torch


def make(B, N, C, dtype=torch.float32, offset=3.0, device="cpu"):
    """Tokens, weight and bias."""
    generator = torch.Generator().manual_seed(C)
    x = torch.randn(B, N, C, generator=generator, dtype=torch.float64) * 2 + offset
    weight, bias = torch.randn(2, C, generator=generator, dtype=torch.float64)
    return x.to(device, dtype), weight.to(device, dtype), bias.to(device, dtype)


def summed(B, N, C, dtype, front=0, everywhere=False, device="cpu"):
    """Tokens, what is added to them, weights, another sum, and tokens in front."""
    x, weight, bias = make(B, N, C, dtype, device=device)
    generator = torch.Generator().manual_seed(N)
    rest = torch.randn(3, B, N + front, C, generator=generator, dtype=torch.float64).to(device, dtype)
    branch = rest[0, 0] if everywhere else rest[0]
    ahead = torch.randn(front, C, generator=generator, dtype=torch.float64).to(device, dtype) if front else None
    return x, branch, weight, bias, (rest[1], rest[2]), ahead


def errors(found, truth):
    """Of the sum, its LayerNorm, each image's temperature and the other sum."""
    pairs = [(found.tokens, truth.tokens), (found.y, truth.y), (found.aside, truth.aside)]
    if truth.scale is not None:
        pairs.append((found.scale if found.scale.ndim == 1 else found.scale.mean(-1), truth.scale))
    return [((ours.double() - exact).norm() / exact.norm()).item() for ours, exact in pairs]
