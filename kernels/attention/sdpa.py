"""Self-self attention on `scaled_dot_product_attention`: nothing of size N×N is held in memory."""

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST_NORM = 1e-12  # that of torch.nn.functional.normalize, applied in float32 so that float16 keeps it


def aligned(qkv: Tensor) -> Tensor:
    """A copy of what starts at an odd place on a GPU: there torch's kernels take the device down (2.11, H100)."""
    if not qkv.is_cuda or torch.compiler.is_compiling() or qkv.storage_offset() * qkv.itemsize % 16 == 0:
        return qkv
    return qkv.clone()


def sdpa(
    qkv: Tensor, inverse_temperature: Tensor, iterations: int, projections: tuple[int, ...], normalize: bool
) -> Tensor:
    """Eq. 3 and 5-7 of GEM with the square root of the inverse temperature c folded into query, key and value.

    Shapes: qkv [B, N, 3, H, D] of any strides, inverse_temperature [B], result [B, N, H*D].
    Norms, the folding and the ensemble are computed in float32 for 16-bit inputs.

    One tensor serves an iteration: (√c·p)(√c·p)ᵀ = c·p pᵀ, and the output's factor of √c is what the next one needs, or
    falls away where rows are normalised.
    """
    B, N, _, H, D = qkv.shape
    wide = torch.promote_types(qkv.dtype, torch.float32)
    root = inverse_temperature.to(wide).sqrt().view(B, 1, 1, 1)
    heads = aligned(qkv).permute(2, 0, 3, 1, 4)  # [3, B, H, N, D]
    value = heads[2]

    def scaled(p: Tensor) -> Tensor:
        """√c·p, of normalised rows where GEM normalises."""
        p = p.to(wide)
        factor = root
        if normalize:
            factor = root / torch.linalg.vector_norm(p, dim=-1, keepdim=True).clamp_min(_SMALLEST_NORM)
        return (p * factor).to(qkv.dtype)

    total = None
    for index in projections:
        keys = scaled(heads[index])
        for _ in range(iterations):
            refined = F.scaled_dot_product_attention(keys, keys, keys, scale=1.0)
            keys = scaled(refined) if normalize else refined
        output = F.scaled_dot_product_attention(keys, keys, value, scale=1.0).to(wide)
        total = output if total is None else total + output
    assert total is not None
    return (total / len(projections)).to(qkv.dtype).transpose(1, 2).reshape(B, N, H * D)
