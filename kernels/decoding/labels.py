"""Labels and confidences at the output size, without [P, H, W] in memory."""

import torch
from gem_fast.kernels.backends import Backend, operation
from gem_fast.kernels.first_use import random_tensors
from torch import Tensor

from . import cpu, triton_limits
from .triton_labels import triton_decode_labels

# Elements of one tile's scores: large enough to hide the calls, small enough to stay near the core.
_TILE_ELEMENTS = 1 << 19


def decode_labels(
    scores: Tensor,
    size: tuple[int, int],
    *,
    logit_scale: float = 100.0,
    threshold: float = 0.0,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax over the classes of the bilinearly upsampled scores, its argmax and its maximum.

    Bilinear upsampling is linear in the patch scores, so each tile of pixels is computed by itself, and the maximum
    of a softmax is `1 / sum(exp(s - max))`.

    Args:
        scores: cosine scores at patch resolution, `[P, h, w]`, one channel a class.
        size: output height and width in pixels, H and W.
        logit_scale: multiplier of the scores before the softmax; CLIP's own is 100.
        threshold: a pixel whose confidence is lower is background.
        backend: `"triton"`, `"cpu"` for the native kernels, or `"sdpa"` for torch's own operations; None is what
            `GEM_FAST_BACKEND` names, else Triton or the native kernels where they serve.

    Returns:
        labels `[H, W]` int32, 0 for background and i + 1 for class i, and confidences `[H, W]` float32 (float64 for
        float64 scores).

    Raises:
        ValueError: scores have another shape, or `backend` does not exist or can't serve.
    """
    if scores.ndim != 3 or 0 in scores.shape:
        raise ValueError(f"scores must have the shape [P, h, w], none of them 0, got {list(scores.shape)}")
    result: tuple[Tensor, Tensor] = OPERATION(backend, scores, size, logit_scale, threshold)
    return result


def labels_in_tiles(
    scores: Tensor, size: tuple[int, int], logit_scale: float, threshold: float
) -> tuple[Tensor, Tensor]:
    """`decode_labels` in torch, on any device, tile by tile: [P, H, W] is never held in memory."""
    classes, h, w = scores.shape
    H, W = size
    logits = scores.to(torch.promote_types(scores.dtype, torch.float32)).permute(1, 2, 0).contiguous() * logit_scale
    labels = torch.empty(H, W, dtype=torch.int32, device=scores.device)
    confidence = torch.empty(H, W, dtype=logits.dtype, device=scores.device)
    top, bottom, row_weight = bilinear_taps(h, H, logits)
    left, right, column_weight = bilinear_taps(w, W, logits)
    tile_columns = min(W, max(1, _TILE_ELEMENTS // classes))
    tile_rows = max(1, _TILE_ELEMENTS // (classes * tile_columns))
    for y in range(0, H, tile_rows):
        rows = slice(y, y + tile_rows)
        stripe = torch.lerp(logits[top[rows]], logits[bottom[rows]], row_weight[rows, None, None])  # [T, w, P]
        for x in range(0, W, tile_columns):
            columns = slice(x, x + tile_columns)
            tile = stripe[:, left[columns]].lerp_(stripe[:, right[columns]], column_weight[columns, None])
            highest, index = tile.max(dim=2)
            best = tile.sub_(highest[..., None]).exp_().sum(dim=2).reciprocal_()
            confidence[rows, columns] = best
            labels[rows, columns] = torch.where(best >= threshold, index + 1, 0).to(torch.int32)
    return labels, confidence


def bilinear_taps(inputs: int, outputs: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two source indices and the second one's weight for each output position, pixel centres at half integers."""
    position = (torch.arange(outputs, device=like.device, dtype=like.dtype) + 0.5) * (inputs / outputs) - 0.5
    position = position.clamp_(min=0)
    first = position.floor().long().clamp_(max=inputs - 1)
    return first, (first + 1).clamp_(max=inputs - 1), position - first


_WIDENED = (torch.float32, torch.bfloat16, torch.float16)  # types that the native kernel takes, as float32

OPERATION = operation(
    "decode_labels",
    Backend("cpu", cpu.cpu_decode_labels, lambda scores, *_: cpu.why_not(scores, *_WIDENED)),
    Backend(
        "triton",
        triton_decode_labels,
        triton_limits.why_not,
        triton_limits.pays,
        trials=lambda *where: [((random_tensors(*where, (5, 7, 6))[0] * 0.03), (9, 67), 100.0, 0.3)],
    ),
    Backend("sdpa", labels_in_tiles),
    example=lambda dtype, device: (torch.empty(2, 28, 28, dtype=dtype, device=device), (448, 448), 100.0, 0.0),
)
