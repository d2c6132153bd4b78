"""The launcher of score decoding on a GPU; Triton is imported on first use."""

import torch
from gem_fast.kernels.triton_host import on_device
from torch import Tensor

from .triton_limits import why_not

PIXELS, CLASSES = 32, 32  # of a tile, whose logits lie in registers


def triton_decode_labels(
    scores: Tensor, size: tuple[int, int], logit_scale: float = 100.0, threshold: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Labels and confidences at the output size in one launch, with the contract of `decode_labels`.

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
    return torch.ops.gem_fast.decode_labels_triton(scores, *size, logit_scale, threshold)


@torch.library.custom_op(
    "gem_fast::decode_labels_triton",
    mutates_args=(),
    schema="(Tensor scores, SymInt height, SymInt width, float logit_scale, float threshold) -> (Tensor, Tensor)",
)
def _labels(scores: Tensor, height: int, width: int, logit_scale: float, threshold: float) -> tuple[Tensor, Tensor]:
    from .labels_kernel import labels_kernel

    P, h, w = scores.shape
    logits = scores.to(torch.float32).permute(1, 2, 0).contiguous() * logit_scale  # [h, w, P]: classes are adjacent
    labels = torch.empty(height, width, dtype=torch.int32, device=scores.device)
    confidence = torch.empty(height, width, dtype=torch.float32, device=scores.device)
    if labels.numel():
        with on_device(scores.device):
            labels_kernel[(-(-width // PIXELS), height)](
                logits, labels, confidence, P, h, w, height, width, threshold,
                PIXELS=PIXELS, CLASSES=CLASSES, num_warps=4,
            )  # fmt: skip
    return labels, confidence


@_labels.register_fake
def _(scores: Tensor, height: int, width: int, logit_scale: float, threshold: float) -> tuple[Tensor, Tensor]:
    return scores.new_empty(height, width, dtype=torch.int32), scores.new_empty(height, width, dtype=torch.float32)
