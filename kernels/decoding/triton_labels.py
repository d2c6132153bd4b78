"""The launcher of score decoding on a GPU; Triton is imported on first use."""

import importlib.util
import os

import torch
from torch import Tensor

PIXELS, CLASSES = 32, 32  # of a tile, whose logits lie in registers


def why_not(scores: Tensor) -> str | None:
    """The reason why `triton_decode_labels` can't serve these scores, or None if it can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if scores.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"{scores.dtype} is not one of float16, bfloat16 and float32"
    if scores.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"scores are on {scores.device.type}, not on a CUDA or ROCm device"
    return None


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
        with torch.cuda.device(scores.device) if scores.device.type == "cuda" else torch.device(scores.device):
            labels_kernel[(-(-W // PIXELS), H)](
                logits, labels, confidence, P, h, w, W, h / H, w / W, threshold,
                PIXELS=PIXELS, CLASSES=CLASSES, num_warps=4,
            )  # fmt: skip
    return labels, confidence
