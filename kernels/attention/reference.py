"""Self-self attention written plainly from the paper's equations, in the precision of its input."""

import torch
import torch.nn.functional as F
from torch import Tensor


def reference(
    qkv: Tensor, inverse_temperature: Tensor, iterations: int, projections: tuple[int, ...], normalize: bool
) -> Tensor:
    """Eq. 3 and 5-7 of GEM with the N×N matrices in memory; float64 in, float64 out.

    Shapes: qkv [B, N, 3, H, D], inverse_temperature [B], result [B, N, H*D].
    """
    B, N, _, H, D = qkv.shape
    c = inverse_temperature.to(qkv.dtype).view(B, 1, 1, 1)
    q_k_v = qkv.permute(2, 0, 3, 1, 4)  # [3, B, H, N, D]
    value = q_k_v[2]

    def unit(p: Tensor) -> Tensor:
        return F.normalize(p, dim=-1) if normalize else p

    def assign(p: Tensor, to: Tensor) -> Tensor:
        return torch.softmax(c * (p @ p.transpose(-2, -1)), dim=-1) @ to  # Eq. 3

    outputs = []
    for index in projections:
        p = unit(q_k_v[index])
        for _ in range(iterations):
            p = unit(assign(p, p))  # Eq. 5
        outputs.append(assign(p, value))  # Eq. 6
    ensemble = torch.stack(outputs).mean(0)  # Eq. 7
    return ensemble.transpose(1, 2).reshape(B, N, H * D)
