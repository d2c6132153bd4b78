"""The launcher of score decoding on a GPU; Triton is imported on first use."""

import math

import torch
from gem_fast.kernels.operators import register
from gem_fast.kernels.triton_host import on_device
from gem_fast.kernels.triton_kernel import Launch, TritonKernel, remembered
from torch import Tensor

from .triton_limits import why_not

PIXELS, CLASSES, WARPS = 64, 4, 2  # of a step: a pixel to a lane, and the float32 that it reads at once
_KERNEL = TritonKernel("decoding.labels_kernel", "labels_kernel")


def triton_decode_labels(
    scores: Tensor, size: tuple[int, int], logit_scale: float = 100.0, threshold: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Labels and confidences at the output size, with the contract of `decode_labels`.

    Shapes: scores [P, h, w], labels [H, W] int32, confidences [H, W] float32. Extra memory: a float32 copy of the
    scores; nothing of size [P, H, W].

    Raises:
        ValueError: scores have another shape, or `why_not` gives a reason.
    """
    if scores.ndim != 3 or 0 in scores.shape:
        raise ValueError(f"scores must have the shape [P, h, w], none of them 0, got {list(scores.shape)}")
    reason = why_not(scores, size)
    if reason:
        raise ValueError(f"Triton can't serve this: {reason}")
    found: tuple[Tensor, Tensor] = _OPERATOR(scores, *size, logit_scale, threshold)
    return found


def _labels(scores: Tensor, height: int, width: int, logit_scale: float, threshold: float) -> tuple[Tensor, Tensor]:
    P, h, w = scores.shape
    labels = torch.empty(height, width, dtype=torch.int32, device=scores.device)
    confidence = torch.empty(height, width, dtype=torch.float32, device=scores.device)
    if labels.numel():
        logits = in_groups(scores, logit_scale)
        with on_device(scores.device):
            _launch(scores.device, (P, h, w), (height, width), float(threshold))(logits, labels, confidence)
    return labels, confidence


@remembered
def _launch(device: torch.device, shape: tuple[int, int, int], size: tuple[int, int], threshold: float) -> Launch:
    (P, h, w), (height, width) = shape, size
    grid, numbers = (-(-width // PIXELS), height, 1), (-(-P // CLASSES), h, w, height, width, threshold)
    return Launch(_KERNEL, grid, *numbers, PIXELS=PIXELS, CLASSES=CLASSES, num_warps=WARPS)


def in_groups(scores: Tensor, logit_scale: float) -> Tensor:
    """Logits [h, w, P'] times log2(e): classes are adjacent, P' a multiple of `CLASSES`, with nothing behind P."""
    from .labels_kernel import LOWEST

    P, h, w = scores.shape
    logits = torch.full((h, w, -(-P // CLASSES) * CLASSES), LOWEST.value, dtype=torch.float32, device=scores.device)
    torch.mul(scores.to(torch.float32).permute(1, 2, 0), logit_scale * math.log2(math.e), out=logits[:, :, :P])
    return logits


def _fake(scores: Tensor, height: int, width: int, logit_scale: float, threshold: float) -> tuple[Tensor, Tensor]:
    return scores.new_empty(height, width, dtype=torch.int32), scores.new_empty(height, width, dtype=torch.float32)


_OPERATOR = register(
    "decode_labels_triton(Tensor scores, SymInt height, SymInt width, float logit_scale, float threshold)"
    " -> (Tensor, Tensor)",
    _labels,
    _fake,
)
