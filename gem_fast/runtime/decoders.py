"""Score decoding without torch: in numpy on the host, or by exported graphs on their device.

Neither holds classes × height × width for labels.
"""

from dataclasses import dataclass

import numpy as np

from ..decoding import label_type
from .graph import Graph

# Elements of one tile's scores: large enough to hide the calls, small enough to stay in the core's cache.
_TILE_ELEMENTS = 1 << 18


class NumpyDecoder:
    """What `gem_fast.kernels` computes for tensors, for arrays: bilinear upsampling as a product with two matrices."""

    def scores(self, scores: np.ndarray) -> np.ndarray:
        return scores

    def heatmaps(self, scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        _, h, w = scores.shape
        maps = upsampling(h, size[0]) @ scores @ upsampling(w, size[1]).T
        low, high = (extreme(axis=(1, 2), keepdims=True) for extreme in (maps.min, maps.max))
        contrast = high - low
        maps -= low
        maps /= np.where(contrast == 0, 1, contrast)
        return maps

    def labels(
        self, scores: np.ndarray, classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        count, h, w = scores.shape
        H, W = size
        rows, columns = upsampling(h, H), upsampling(w, W)
        logits = np.float32(logit_scale) * scores.transpose(1, 2, 0).reshape(h, w * count)
        labels = np.empty((H, W), label_type(classes))
        confidence = np.empty((H, W), np.float32)
        tile_columns = min(W, max(1, _TILE_ELEMENTS // count))
        tile_rows = max(1, _TILE_ELEMENTS // (count * tile_columns))
        for y in range(0, H, tile_rows):
            stripe = (rows[y : y + tile_rows] @ logits).reshape(-1, w, count)
            for x in range(0, W, tile_columns):
                place = slice(y, y + tile_rows), slice(x, x + tile_columns)
                tile = columns[x : x + tile_columns] @ stripe  # [T, columns, P]
                index = tile.argmax(axis=2)
                tile -= np.take_along_axis(tile, index[..., None], axis=2)
                # The maximum of a softmax is 1 / sum(exp(s - max)).
                best = confidence[place] = 1 / np.exp(tile, out=tile).sum(axis=2)
                labels[place] = np.where((best >= threshold) & (index < classes), index + 1, 0)
        return labels, confidence


@dataclass(frozen=True)
class GraphDecoder:
    """Decoding by the exported graphs, for scores on the host: on a GPU that is worth their way there."""

    heatmap_graph: Graph
    label_graph: Graph

    def scores(self, scores: np.ndarray) -> np.ndarray:
        return scores

    def heatmaps(self, scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        inputs = {"cosines": scores[None], "output_size": np.array(size, np.int64)}
        return self.heatmap_graph.run(inputs, "heatmaps")[0].numpy()[0]

    def labels(
        self, scores: np.ndarray, classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        inputs = {
            "cosines": scores[None],
            "output_size": np.array(size, np.int64),
            "logit_scale": np.float32(logit_scale),
            "threshold": np.float32(threshold),
        }
        labels, confidence = (value.numpy()[0] for value in self.label_graph.run(inputs, "labels", "confidence"))
        return np.where(labels > classes, 0, labels).astype(label_type(classes)), confidence


def upsampling(inputs: int, outputs: int) -> np.ndarray:
    """Bilinear interpolation with pixel centres at half integers as a matrix `[outputs, inputs]` float32."""
    position = np.clip((np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5, 0, inputs - 1)
    distance = np.abs(position[:, None] - np.arange(inputs))
    return np.maximum(0, 1 - distance).astype(np.float32)
