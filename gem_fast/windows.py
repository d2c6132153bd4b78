"""Sliding windows: crops of one size in, their scores read as one image out. Needs no torch.

A pixel's score is the mean, over the windows that cover it, of their bilinearly upsampled scores, which is mmseg's
rule; read at the size that is asked for, so that nothing is upsampled twice. Windows form a grid, so the rule is a
product of one matrix for the rows and one for the columns, and it is computed tile by tile.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .decoding import label_type
from .errors import warn_caller
from .images import MAX_WINDOWED_PIXELS, ImageError
from .numbers import number
from .preprocess import MAX_TOKENS, ResizePolicy, unbounded_size

# Elements of one tile's scores: they fit in a core's cache.
_TILE_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Windows:
    """Square windows of a side, a stride apart, in pixels of the model's input; multiples of its patch."""

    side: int
    stride: int
    patch: int

    def layout(self, shape: tuple[int, int]) -> "Layout":
        """Where they lie on an input of height and width."""
        rows, columns = (Axis(length, min(self.side, length), self.stride, self.patch) for length in shape)
        return Layout(rows, columns)


def parse_windows(window: int | None, stride: int | None, patch: int) -> Windows | None:
    """Windows as users name them, rounded to the patch, which is told; None without a window.

    Args:
        window: side in pixels.
        stride: pixels from one window to the next; None for half the side.
        patch: of the model, in pixels.

    Raises:
        ValueError: a number is wrong; the message says what would be right.
    """
    if window is None:
        if stride is not None:
            raise ValueError("stride is that of windows: give window, too")
        return None
    window = number("window", window, "a positive number of pixels", lambda x: 1 <= x < math.inf)
    step = max(1, window // 2) if stride is None else stride
    right = f"1 to window, {window}: pixels from one to the next"
    asked = window, number("stride", step, right, lambda x: 1 <= x <= window)
    side, step = (max(1, round(each / patch)) * patch for each in asked)
    if side**2 > MAX_TOKENS * patch**2:
        raise ValueError(f"a window of {window} has {(side // patch) ** 2:,} tokens of at most {MAX_TOKENS:,}")
    if (side, step) != (window, asked[1] if stride is not None else step):
        warn_caller(f"windows of {side} every {step} pixels: both are rounded to multiples of the patch, {patch}")
    return Windows(side, step, patch)


def windowed_size(image_size: tuple[int, int], size: int, policy: ResizePolicy, patch: int) -> tuple[int, int]:
    """As `preprocess.input_size`, where each window is an input of its own: bounded by memory alone.

    Raises:
        ImageError: the input would have more than `MAX_WINDOWED_PIXELS`. ValueError: no such policy.
    """
    height, width = unbounded_size(image_size, size, policy, patch)
    if height * width > MAX_WINDOWED_PIXELS:
        raise ImageError(
            f"an image of {image_size[1]}×{image_size[0]} would become an input of {width}×{height}, more than "
            f"{MAX_WINDOWED_PIXELS:,} pixels; take a smaller size"
        )
    return height, width


@dataclass(frozen=True)
class Axis:
    """Windows along one side of an input: `side` pixels each of its `length`, the last one moved inside."""

    length: int
    side: int
    stride: int
    patch: int

    @cached_property
    def starts(self) -> tuple[int, ...]:
        last = self.length - self.side
        return tuple(min(k * self.stride, last) for k in range(-(-last // self.stride) + 1))

    def weights(self, outputs: int, first: int, last: int) -> tuple[np.ndarray, slice]:
        """What pixels `first` to `last` of `outputs` along this side take of the windows' scores.

        Returns:
            `[last - first, S]` float32, and which S rows of all windows' scores, one window below the other, they are.
        """
        centres = (np.arange(first, last) + 0.5) * (self.length / outputs)
        starts = np.array(self.starts)
        touched = np.flatnonzero((starts <= centres[-1]) & (starts + self.side > centres[0]))
        patches = np.arange(self.side // self.patch)
        inside = centres[:, None] - starts[touched]
        position = np.clip(inside / self.patch - 0.5, 0, patches[-1])
        covered = (inside >= 0) & (inside < self.side)
        taps = np.maximum(0, 1 - np.abs(position[..., None] - patches)) * covered[..., None]
        taps /= covered.sum(1)[:, None, None]
        count = len(patches)
        return taps.reshape(len(centres), -1).astype(np.float32), slice(touched[0] * count, (touched[-1] + 1) * count)

    def most(self, outputs: int) -> int:
        """How many of `outputs` along this side a tile may have: threads have many windows for each, and the weights
        grow with the square."""
        patches = self.length / outputs * self.side / (self.stride * self.patch)  # that an output adds to all weights
        return max(1, int((_TILE_ELEMENTS / patches) ** 0.5))


@dataclass(frozen=True)
class Layout:
    """Windows on one input: a grid of them, row by row."""

    rows: Axis
    columns: Axis

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width of each."""
        return self.rows.side, self.columns.side

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def crops(self, pixels: np.ndarray) -> Iterator[np.ndarray]:
        """Those of an input's pixels `[H, W, 3]`, one after another."""
        height, width = self.crop
        for top in self.rows.starts:
            for left in self.columns.starts:
                yield pixels[top : top + height, left : left + width]

    def empty(self, classes: int) -> np.ndarray:
        """Room for the scores of all windows beside and below each other, `[P, rows · h, columns · w]` float32."""
        sides = (len(axis.starts) * axis.side // axis.patch for axis in (self.rows, self.columns))
        return np.empty((classes, *sides), np.float32)

    def put(self, room: np.ndarray, index: int, scores: np.ndarray) -> None:
        """Keep the scores `[P, h, w]` of one window."""
        row, column = divmod(index, len(self.columns.starts))
        _, h, w = scores.shape
        room[:, row * h : (row + 1) * h, column * w : (column + 1) * w] = scores


@dataclass(frozen=True)
class WindowDecoder:
    """Decodes the scores of an image's windows as `Layout.put` keeps them: a `Decoder` on the host."""

    layout: Layout

    def scores(self, scores: np.ndarray) -> np.ndarray:
        """The mean over the windows of each patch, `[P, h, w]` float32."""
        rows, columns = self.layout.rows, self.layout.columns
        return self._upsampled(scores, (rows.length // rows.patch, columns.length // columns.patch))

    def heatmaps(self, scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        maps = self._upsampled(scores, size)
        low, high = (extreme(axis=(1, 2), keepdims=True) for extreme in (maps.min, maps.max))
        maps -= low
        maps /= np.where(high == low, 1, high - low)
        return maps

    def labels(
        self, scores: np.ndarray, classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        labels = np.empty(size, label_type(classes))
        confidence = np.empty(size, np.float32)
        for place, tile in self.tiles(scores, size):
            index = tile.argmax(axis=0)
            tile -= tile.max(axis=0)
            tile *= np.float32(logit_scale)
            # The maximum of a softmax is 1 / sum(exp(s - max)).
            best = confidence[place] = 1 / np.exp(tile, out=tile).sum(axis=0)
            labels[place] = np.where((best >= threshold) & (index < classes), index + 1, 0)
        return labels, confidence

    def _upsampled(self, scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        maps = np.empty((len(scores), *size), np.float32)
        for place, tile in self.tiles(scores, size):
            maps[:, place[0], place[1]] = tile
        return maps

    def tiles(self, scores: np.ndarray, size: tuple[int, int]) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """Place and scores `[P, rows, columns]` of each tile of an image of height and width."""
        height, width = size
        pixels = max(1, _TILE_ELEMENTS // len(scores))
        tall = min(height, max(1, int(pixels**0.5)), self.layout.rows.most(height))
        wide = min(width, max(1, pixels // tall), self.layout.columns.most(width))
        for top in range(0, height, tall):
            bottom = min(height, top + tall)
            rows, below = self.layout.rows.weights(height, top, bottom)
            for left in range(0, width, wide):
                right = min(width, left + wide)
                columns, beside = self.layout.columns.weights(width, left, right)
                tile = rows @ np.asarray(scores[:, below, beside], np.float32) @ columns.T
                yield (slice(top, bottom), slice(left, right)), tile
