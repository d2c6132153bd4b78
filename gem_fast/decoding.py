"""From the cosine scores of one image to heat maps and labels at its size, on demand. Needs no torch."""

from collections.abc import Sequence
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
        labels, confidence = self.on_device(_tensor(scores), classes, size, logit_scale, threshold)
        return labels.cpu().numpy().astype(label_type(classes)), confidence.float().cpu().numpy()

    def on_device(
        self, scores: "Tensor", classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> "tuple[Tensor, Tensor]":
        """`labels` as tensors where the scores are."""
        from gem_fast.kernels import decode_labels

        # Results are float32, and what is wider need not be served by every backend.
        scores = scores.float() if scores.dtype.itemsize > 4 else scores
        labels, confidence = decode_labels(
            scores, size, logit_scale=logit_scale, threshold=threshold, backend=self.backend
        )
        return labels.masked_fill_(labels > classes, 0), confidence

    def label_maps(
        self,
        scores: "Tensor",
        classes: int,
        sizes: Sequence[tuple[int, int]],
        logit_scale: float,
        threshold: float,
    ) -> list[np.ndarray]:
        """Labels alone of each image of a batch, in one transfer: scores `[B, P, h, w]`, each image's height and width.

        A single score has nothing to compete with: see `is_alone`.
        """
        import torch

        from gem_fast.kernels import decode_heatmaps

        maps = []
        for own, size in zip(scores, sizes, strict=True):
            if is_alone(len(own)):
                found = decode_heatmaps(own.float(), size, backend=self.backend)[0] >= threshold
            else:
                found = self.on_device(own, classes, size, logit_scale, threshold)[0]
            maps.append(found.flatten().to(torch.uint8 if classes < 256 else torch.int32))
        flat = torch.cat(maps).cpu().numpy().astype(label_type(classes), copy=False)
        ends = np.cumsum([height * width for height, width in sizes])
        return [part.reshape(size) for part, size in zip(np.split(flat, ends[:-1]), sizes, strict=True)]


@dataclass(frozen=True)
class SigmoidDecoder(KernelDecoder):
    """Labels whose confidence is the sigmoid of the best class alone, for models trained with one.

    Attributes:
        logit_bias: added to the scaled cosine.
    """

    logit_bias: float = 0.0

    def on_device(
        self, scores: "Tensor", classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> "tuple[Tensor, Tensor]":
        """As `KernelDecoder.on_device`, with `sigmoid(logit_scale · score + logit_bias)` in place of the softmax."""
        import torch
        import torch.nn.functional as F

        scores = scores.float()
        best = torch.full(size, -torch.inf, device=scores.device)
        labels = torch.zeros(size, dtype=torch.long, device=scores.device)
        for index, each in enumerate(scores):  # a class at a time: nothing of the size classes × height × width
            upsampled = F.interpolate(each[None, None], size, mode="bilinear")[0, 0]
            higher = upsampled > best
            best[higher], labels[higher] = upsampled[higher], index + 1
        confidence = torch.sigmoid(logit_scale * best + self.logit_bias)
        labels[(confidence < threshold) | (labels > classes)] = 0
        return labels, confidence


def _tensor(scores: "Tensor | np.ndarray") -> "Tensor":
    import torch

    return scores if isinstance(scores, torch.Tensor) else torch.from_numpy(scores)


def is_alone(count: int) -> bool:
    """Whether a single prompt without background has nothing to compete with: a softmax over it is 1 everywhere.

    Then its heat map, which tells where it is rather than is not, is the confidence, with a threshold of its own.
    """
    return count == 1


def label_type(classes: int) -> type[np.unsignedinteger]:
    """The smallest type that holds the labels 0 to `classes` and that PNG can store."""
    return np.uint8 if classes < 256 else np.uint16
