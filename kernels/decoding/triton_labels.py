"""The launcher of score decoding on a GPU; Triton is imported on first use."""

import torch
from gem_fast.kernels.triton_host import on_device, why_no_triton
from torch import Tensor

PIXELS, CLASSES = 32, 32  # of a tile, whose logits lie in registers


def why_not(scores: Tensor) -> str | None:
    """The reason why `triton_decode_labels` can't serve these scores, or None if it can."""
    return why_no_triton(scores, "scores")


def triton_decode_labels(
    scores: Tensor, size: tuple[int, int], *, logit_scale: float = 100.0, threshold: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Labels and confidences at the output size in one launch, with the contract of `decode_labels`.

    Shapes: scores [P, h, w], labels [H, W] int32, confidences [H, W] float32. Extra memory: a float32 copy of the
    scores; nothing of size [P, H, W].

    Raises:
        ValueError: scores have another shape, or `why_not` gives a reason.
    """
    if scores.ndim != 3 or 0 in scores.shape:
        raise ValueError(f"scores must have the shape [P, h, w], none of them 0, got {list(scores.shape)}")
    reason = why_not(scores)
    if reason:
        raise ValueError(f"Triton can't serve this: {reason}")
    from .labels_kernel import labels_kernel

    (P, h, w), (H, W) = scores.shape, size
    logits = scores.to(torch.float32).permute(1, 2, 0).contiguous() * logit_scale  # [h, w, P]: classes are adjacent
    labels = torch.empty(H, W, dtype=torch.int32, device=scores.device)
    confidence = torch.empty(H, W, dtype=torch.float32, device=scores.device)
    if labels.numel():
        with on_device(scores.device):
            labels_kernel[(-(-W // PIXELS), H)](
                logits, labels, confidence, P, h, w, W, h / H, w / W, threshold,
                PIXELS=PIXELS, CLASSES=CLASSES, num_warps=4,
            )  # fmt: skip
    return labels, confidence
