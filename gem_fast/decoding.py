"""From the cosine scores of one image to heat maps and labels at its size, on demand. Needs no torch."""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class Decoder(Protocol):
    """How an engine decodes its own scores: `[P, h, w]` arrays of it in, numpy arrays out."""

    def scores(self, cosines: Any) -> np.ndarray:
        """The scores themselves, `[P, h, w]` float32."""

    def heatmaps(self, cosines: Any, size: tuple[int, int]) -> np.ndarray:
        """Upsampled bilinearly and stretched to 0..1 each, `[P, H, W]` float32; 0 where a map has no contrast."""

    def labels(
        self, cosines: Any, classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels `[H, W]` of `label_type(classes)` and confidences `[H, W]` float32.

        The softmax goes over all P scores; those behind the first `classes` are background, which is labelled 0 as is
        a confidence below the threshold.
        """


class KernelDecoder:
    """Decoding by `gem_fast.kernels`, on the device that holds the scores."""

    def scores(self, cosines: "Tensor") -> np.ndarray:
        return cosines.float().cpu().numpy()

    def heatmaps(self, cosines: "Tensor", size: tuple[int, int]) -> np.ndarray:
        from gem_fast.kernels import decode_heatmaps

        return decode_heatmaps(cosines.float(), size).cpu().numpy()

    def labels(
        self, cosines: "Tensor", classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        from gem_fast.kernels import decode_labels

        labels, confidence = decode_labels(cosines, size, logit_scale=logit_scale, threshold=threshold)
        labels = labels.masked_fill_(labels > classes, 0)
        return labels.cpu().numpy().astype(label_type(classes)), confidence.float().cpu().numpy()


def label_type(classes: int) -> type[np.unsignedinteger]:
    """The smallest type that holds the labels 0 to `classes` and that PNG can store."""
    return np.uint8 if classes < 256 else np.uint16
