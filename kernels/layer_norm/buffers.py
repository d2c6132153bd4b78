"""Memory for what the fused LayerNorms give, and their inputs as kernels read them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def outputs(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    branch: Tensor | None,
    norm_scale: float | None,
    aside: Tensor | None,
    aside_branch: Tensor | None,
    front: Tensor | None,
) -> list[Tensor]:
    """Memory for what is asked for, in this order: the sum with `branch`, LayerNorm of it, norms of that `[B, N]` in
    float32 times `norm_scale`, and the sum of `aside`."""
    B, N, C = x.shape
    N = N if front is None else N + len(front)
    found = [torch.empty((B, N, C), dtype=x.dtype, device=x.device) for _ in range(1 if branch is None else 2)]
    if norm_scale is not None:
        found.append(torch.empty((B, N), dtype=torch.float32, device=x.device))
    if aside is not None:
        found.append(torch.empty((B, N, C), dtype=x.dtype, device=x.device))
    return found


def by_name(
    found: Sequence[Tensor], adds: bool, norms: bool
) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """Total, y, norms and the sum of `aside` of a list of `outputs`; None for what is not asked for."""
    count = adds + 1 + norms
    aside = found[count] if len(found) > count else None
    y = int(adds)  # Dynamo takes no truth value for an index
    return found[0] if adds else None, found[y], found[y + 1] if norms else None, aside


def inputs(x: Tensor, branch: Tensor | None, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Tokens, and what is added to them, of each image; for no branch x again, which is not read."""
    x = of_adjacent_channels(x)
    return x, x if branch is None else of_adjacent_channels(branch if branch.ndim == 3 else branch.expand(shape))


def of_adjacent_channels(tokens: Tensor) -> Tensor:
    """The kernels read any strides but that of the channels."""
    return tokens if tokens.stride(-1) == 1 else tokens.contiguous()


def contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()
