"""Device code of score decoding: bilinear interpolation, softmax over the classes, argmax and threshold."""

import triton
import triton.language as tl

from .taps import lerp, taps

LOWEST: tl.constexpr = tl.constexpr(-3e38)  # the logit of a class that is none; finite, since it is interpolated


@triton.jit
def at_pixels(top, bottom, o_left, o_right, weight_y, weight_x, o_class):
    """Interpolated logits of some classes [PIXELS, CLASSES]."""
    north, south = tl.load(top + o_left + o_class), tl.load(bottom + o_left + o_class)
    west = lerp(north, south, weight_y)
    north, south = tl.load(top + o_right + o_class), tl.load(bottom + o_right + o_class)
    return lerp(west, lerp(north, south, weight_y), weight_x[:, None])


@triton.jit
def labels_kernel(
    logits,  # [h, w, groups * CLASSES], float32, times log2(e); behind the last class `LOWEST`
    labels,  # [H, W], int32
    confidence,  # [H, W], float32
    groups,
    h,
    w,
    H,
    W,
    threshold,
    PIXELS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """A run of pixels of one output row, under a running maximum and sum.

    A lane has a pixel and reads `CLASSES` logits of each of its four patches at once, so nothing is shared between
    lanes. Only the group of the highest logit is kept, and read again in the end for the class.
    """
    i_row = tl.program_id(1)
    o_pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    top, bottom, weight_y = taps(i_row, h, H)
    left, right, weight_x = taps(o_pixel, w, W)
    depth = groups * CLASSES
    p_top, p_bottom = logits + top.to(tl.int64) * w * depth, logits + bottom.to(tl.int64) * w * depth
    o_left, o_right, o_class = (left * depth)[:, None], (right * depth)[:, None], tl.arange(0, CLASSES)[None, :]
    highest = tl.full((PIXELS,), float("-inf"), tl.float32)
    leading = tl.zeros((PIXELS,), tl.int32)
    total = tl.zeros((PIXELS,), tl.float32)
    for start in range(0, depth, CLASSES):
        tile = at_pixels(p_top, p_bottom, o_left, o_right, weight_y, weight_x, start + o_class)
        best = tl.max(tile, 1)
        leading = tl.where(best > highest, start, leading)
        higher = tl.maximum(highest, best)
        total = total * tl.exp2(highest - higher) + tl.sum(tl.exp2(tile - higher[:, None]), 1)
        highest = higher
    tile = at_pixels(p_top, p_bottom, o_left, o_right, weight_y, weight_x, leading[:, None] + o_class)
    label = leading + tl.argmax(tile, 1) + 1
    sure = tl.where(highest > LOWEST, 1.0 / total, float("nan"))  # where no class is finite, one that is none leads
    inside = o_pixel < W
    offset = i_row.to(tl.int64) * W + o_pixel
    tl.store(confidence + offset, sure, mask=inside)
    tl.store(labels + offset, tl.where(sure >= threshold, label, 0), mask=inside)
