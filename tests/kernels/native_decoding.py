"""Scores for the native decoding, and its call."""

import torch
from gem_fast.kernels.decoding import cpu


def make_scores(P, h, w, seed=0, dtype=torch.float32):
    """Cosines as CLIP has them: all positive, a few hundredths apart."""
    return (torch.randn(P, h, w, generator=torch.Generator().manual_seed(seed)) * 0.02 + 0.2).to(dtype)


def decode(scores, size, path, logit_scale=100.0, threshold=0.0):
    return cpu.cpu_decode_labels(scores, size, logit_scale=logit_scale, threshold=threshold, path=path)
