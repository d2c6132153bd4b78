"""Self-self attention on `scaled_dot_product_attention`: nothing of size N×N is held in memory."""

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST_NORM = 1e-12  # that of torch.nn.functional.normalize, applied in float32 so that float16 keeps it


def sdpa(
    qkv: Tensor, inverse_temperature: Tensor, *, iterations: int, projections: tuple[int, ...], normalize: bool
) -> Tensor:
    """Eq. 3 and 5-7 of GEM with the temperature folded into the query.

    Shapes: qkv [B, N, 3, H, D] of any strides, inverse_temperature [B], result [B, N, H*D].
    Norms, the folding and the ensemble are computed in float32 for 16-bit inputs.
    """
    B, N, _, H, D = qkv.shape
    wide = torch.promote_types(qkv.dtype, torch.float32)
    c = inverse_temperature.to(wide).view(B, 1, 1, 1)
    heads = qkv.permute(2, 0, 3, 1, 4)  # [3, B, H, N, D]
    value = heads[2]

    def key_and_query(p: Tensor) -> tuple[Tensor, Tensor]:
        p = p.to(wide)
        if normalize:
            p = p / torch.linalg.vector_norm(p, dim=-1, keepdim=True).clamp_min(_SMALLEST_NORM)
        return p.to(qkv.dtype), (p * c).to(qkv.dtype)

    total = None
    for index in projections:
        key, query = key_and_query(heads[index])
        for _ in range(iterations):
            key, query = key_and_query(F.scaled_dot_product_attention(query, key, key, scale=1.0))
        output = F.scaled_dot_product_attention(query, key, value, scale=1.0).to(wide)
        total = output if total is None else total + output
    assert total is not None
    return (total / len(projections)).to(qkv.dtype).transpose(1, 2).reshape(B, N, H * D)
