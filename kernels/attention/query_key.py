"""The attention of an unchanged block, over the packed projections that GEM's path reads too."""

import torch
import torch.nn.functional as F
from gem_fast.kernels.backends import Backend, operation
from torch import Tensor

from .cpu import query_key_cpu, why_not_tokens
from .sdpa import aligned
from .self_self import check_qkv


def query_key_attention(qkv: Tensor, backend: str | None = None) -> Tensor:
    """softmax(q kᵀ/√D) v of qkv `[B, N, 3, H, D]` to `[B, N, H*D]`.

    The native kernel serves if `backend` (or `GEM_FAST_BACKEND`) names `"cpu"` or leaves the choice; all else is
    `scaled_dot_product_attention`, which is at home on every device. On a CPU its bits for few tokens depend on the
    number of threads.

    Raises:
        ValueError: qkv has another shape or type, or `backend` does not exist or can't serve.
    """
    check_qkv(qkv)
    result: Tensor = OPERATION(backend, qkv)
    return result


def sdpa(qkv: Tensor) -> Tensor:
    """`query_key_attention` on `scaled_dot_product_attention`."""
    query, key, value = aligned(qkv).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


OPERATION = operation(
    "query_key_attention",
    Backend("cpu", query_key_cpu, why_not_tokens),
    Backend("sdpa", sdpa),
    example=lambda dtype, device: (torch.empty(1, 785, 3, 12, 64, dtype=dtype, device=device),),
)
