"""The attention of an unchanged block, over the packed projections that GEM's path reads too."""

import os

import torch.nn.functional as F
from torch import Tensor

from .cpu import query_key_cpu, why_not_tokens
from .registry import VARIABLE


def query_key_attention(qkv: Tensor, backend: str | None = None) -> Tensor:
    """softmax(q kᵀ/√D) v of qkv `[B, N, 3, H, D]` to `[B, N, H*D]`.

    The native kernel serves where it can, if `backend` (or `GEM_FAST_BACKEND`) leaves the choice or names `"cpu"`;
    all else is `scaled_dot_product_attention`, which is at home on every device.
    """
    if (backend or os.environ.get(VARIABLE) or "cpu") == "cpu" and why_not_tokens(qkv) is None:
        return query_key_cpu(qkv)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
