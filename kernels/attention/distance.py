"""NACLIP's bias: a Gaussian of the distance between patches, added to the logits."""

import torch
from torch import Tensor


def distance_factors(grid: tuple[int, int], sigma: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """The bias as a product of two tables, `bias[i, j] = down[y_i, j] * across[x_i, j]` for the patch i at (y_i, x_i).

    `exp(-(dy² + dx²)/2σ²)` in units of patches, so nothing of size N×N is needed. Tokens are the class token, which has
    no place and whose column is 0, and then the patches by rows.

    Args:
        grid: patches in height and width, h and w.
        sigma: of the Gaussian, in patches.
        like: the type and device of the tables.

    Returns:
        `[h, 1 + h*w]` and `[w, 1 + h*w]`.
    """
    h, w = grid
    down, across = (_gaussian(side, sigma, like) for side in grid)
    return _columns(down.repeat_interleave(w, dim=1)), _columns(across.repeat(1, h))


def _gaussian(side: int, sigma: float, like: Tensor) -> Tensor:
    places = torch.arange(side, dtype=like.dtype, device=like.device)
    return torch.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))


def _columns(patches: Tensor) -> Tensor:
    """With the class token's column before the patches'."""
    return torch.nn.functional.pad(patches, (1, 0))


def bias_rows(factors: tuple[Tensor, Tensor], start: int, end: int) -> Tensor:
    """Rows start to end of the bias, `[end - start, N]`; that of the class token is 0."""
    down, across = factors
    patches = torch.arange(max(start, 1), end, device=down.device) - 1
    w = across.shape[0]
    rows = down[patches // w] * across[patches % w]
    return torch.nn.functional.pad(rows, (0, 0, 1, 0)) if start == 0 else rows
