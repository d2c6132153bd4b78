"""From the cosine scores of one image to heat maps and labels at its size, on demand. Needs no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class Decoder(Protocol):
    """How an engine decodes its own scores: `[P, h, w]` arrays of it in, numpy arrays out."""

    def scores(self, scores: Any) -> np.ndarray:
        """The scores themselves, `[P, h, w]` float32."""

    def heatmaps(self, scores: Any, size: tuple[int, int]) -> np.ndarray:
        """Upsampled bilinearly and stretched to 0..1 each, `[P, H, W]` float32; 0 where a map has no contrast."""

    def labels(
        self, scores: Any, classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels `[H, W]` of `label_type(classes)` and confidences `[H, W]` float32.

        The softmax goes over all P scores; those behind the first `classes` are background, which is labelled 0 as is
        a confidence below the threshold.
        """


@dataclass(frozen=True)
class KernelDecoder:
    """Decoding by `gem_fast.kernels`, on the device that holds the scores: tensors, or numpy arrays on the host.

    Attributes:
        backend: the model's, by name; None for what serves.
    """

    backend: str | None = None

    def scores(self, scores: "Tensor | np.ndarray") -> np.ndarray:
        return _tensor(scores).float().cpu().numpy()

    def heatmaps(self, scores: "Tensor | np.ndarray", size: tuple[int, int]) -> np.ndarray:
        from gem_fast.kernels import decode_heatmaps

        return decode_heatmaps(_tensor(scores).float(), size, backend=self.backend).cpu().numpy()

    def labels(
        self, scores: "Tensor | np.ndarray", classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        from gem_fast.kernels import decode_labels

        scores = _tensor(scores)
        # Results are float32, and what is wider need not be served by every backend.
        scores = scores.float() if scores.dtype.itemsize > 4 else scores
        labels, confidence = decode_labels(
            scores, size, logit_scale=logit_scale, threshold=threshold, backend=self.backend
        )
        labels = labels.masked_fill_(labels > classes, 0)
        return labels.cpu().numpy().astype(label_type(classes)), confidence.float().cpu().numpy()


@dataclass(frozen=True)
class SigmoidDecoder(KernelDecoder):
    """Labels whose confidence is the sigmoid of the best class alone, for models trained with one.

    Attributes:
        logit_bias: added to the scaled cosine.
    """

    logit_bias: float = 0.0

    def labels(
        self, scores: "Tensor | np.ndarray", classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `KernelDecoder.labels`, with `sigmoid(logit_scale · score + logit_bias)` in place of the softmax."""
        import torch
        import torch.nn.functional as F

        scores = _tensor(scores).float()
        best = torch.full(size, -torch.inf, device=scores.device)
        labels = torch.zeros(size, dtype=torch.long, device=scores.device)
        for index, each in enumerate(scores):  # a class at a time: nothing of the size classes × height × width
            upsampled = F.interpolate(each[None, None], size, mode="bilinear")[0, 0]
            higher = upsampled > best
            best[higher], labels[higher] = upsampled[higher], index + 1
        confidence = torch.sigmoid(logit_scale * best + self.logit_bias)
        labels[(confidence < threshold) | (labels > classes)] = 0
        return labels.cpu().numpy().astype(label_type(classes)), confidence.cpu().numpy()


def _tensor(scores: "Tensor | np.ndarray") -> "Tensor":
    import torch

    return torch.as_tensor(scores)


def label_type(classes: int) -> type[np.unsignedinteger]:
    """The smallest type that holds the labels 0 to `classes` and that PNG can store."""
    return np.uint8 if classes < 256 else np.uint16
