"""Score decoding the plain way: upsampled scores of every class in memory."""

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, pixel centres at half integers, as the authors of GEM do: [P, h, w] -> [P, H, W]."""
    return F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]


def labels_reference(
    scores: Tensor, size: tuple[int, int], logit_scale: float, threshold: float
) -> tuple[Tensor, Tensor]:
    """What `decode_labels` computes, with [P, H, W] in memory."""
    confidence, index = torch.softmax(logit_scale * upsample(scores, size), dim=0).max(dim=0)
    return torch.where(confidence >= threshold, index + 1, 0).to(torch.int32), confidence
