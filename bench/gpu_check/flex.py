"""Self-self attention on torch's FlexAttention, as a compiled rival."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def flex_self_self(compiled: bool) -> Callable[..., Tensor]:
    """Eq. 3 and 5-7 of GEM with the arguments of the backends.

    With `compiled`, FlexAttention is compiled by itself: compiled together with what is around it, torch 2.14's result
    on the CPU is wrong. What can't be compiled raises; nothing falls back to eager code unseen.
    """
    from torch.nn.attention.flex_attention import flex_attention

    flex: Callable[..., Any] = flex_attention
    if compiled:
        torch.compiler.reset()  # the limit of recompilations is for all cases of a process together
        flex = torch.compile(flex_attention, fullgraph=True, dynamic=False)

    def attention(qkv: Tensor, c: Tensor, *, iterations: int, projections: tuple[int, ...], normalize: bool) -> Tensor:
        def tempered(score: Tensor, image: Tensor, *_: Tensor) -> Tensor:
            return score * c[image]

        def unit(p: Tensor) -> Tensor:
            return F.normalize(p.float(), dim=-1).to(qkv.dtype) if normalize else p

        def assign(p: Tensor, to: Tensor) -> Tensor:
            result: Tensor = flex(p, p, to, score_mod=tempered, scale=1.0)
            return result

        heads = qkv.permute(2, 0, 3, 1, 4)  # [3, B, H, N, D]
        outputs = []
        for index in projections:
            p = unit(heads[index])
            for _ in range(iterations):
                p = unit(assign(p, p))  # Eq. 5
            outputs.append(assign(p, heads[2]))  # Eq. 6
        return torch.stack(outputs).mean(0).transpose(1, 2).flatten(2)  # Eq. 7

    return attention
