"""NACLIP's bias: a Gaussian of the distance between patches, added to the logits."""

import torch
from torch import Tensor


def distance_factors(
    grid: tuple[int, int], sigma: float, like: Tensor, class_token: bool = True
) -> tuple[Tensor, Tensor]:
    """The bias as a product of two tables, `bias[i, j] = down[y_i, j] * across[x_i, j]` for the patch i at (y_i, x_i).

    `exp(-(dy² + dx²)/2σ²)` in units of patches, so nothing of size N×N is needed. Tokens are the class token, if there
    is one, which has no place and whose column is 0, and then the patches by rows.

    Args:
        grid: patches in height and width, h and w.
        sigma: of the Gaussian, in patches.
        like: the type and device of the tables.
        class_token: whether there is one.

    Returns:
        `[h, N]` and `[w, N]`.
    """
    h, w = grid
    down, across = (_gaussian(side, sigma, like) for side in grid)
    tables = down.repeat_interleave(w, dim=1), across.repeat(1, h)
    return (_columns(tables[0]), _columns(tables[1])) if class_token else tables


def _gaussian(side: int, sigma: float, like: Tensor) -> Tensor:
    places = torch.arange(side, dtype=like.dtype, device=like.device)
    return torch.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))


def _columns(patches: Tensor) -> Tensor:
    """With the class token's column before the patches'."""
    return torch.nn.functional.pad(patches, (1, 0))


def bias_rows(factors: tuple[Tensor, Tensor], start: int, end: int) -> Tensor:
    """Rows start to end of the bias, `[end - start, N]`; that of a class token is 0."""
    down, across = factors
    first, w = int(has_class_token(factors)), across.shape[0]
    patches = torch.arange(max(start, first), end, device=down.device) - first
    rows = down[patches // w] * across[patches % w]
    return torch.nn.functional.pad(rows, (0, 0, 1, 0)) if start < first else rows


def has_class_token(factors: tuple[Tensor, Tensor]) -> bool:
    """Whether the first token of the tables is a class token."""
    down, across = factors
    return down.shape[1] > down.shape[0] * across.shape[0]


def why_not_factors(factors: tuple[Tensor, Tensor] | None) -> str | None:
    """Why a kernel can't add this bias, or None: kernels count the patches from the second token."""
    if factors is not None and not has_class_token(factors):
        return "its bias is for patches behind a class token, and there is none"
    return None
