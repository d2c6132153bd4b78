"""Device code of score decoding: bilinear interpolation, softmax over the classes, argmax and threshold."""

import triton
import triton.language as tl

from .taps import lerp, taps


@triton.jit
def labels_kernel(
    logits,  # [h, w, P], float32
    labels,  # [H, W], int32
    confidence,  # [H, W], float32
    P,
    h,
    w,
    H,
    W,
    threshold,
    PIXELS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """A run of pixels of one output row; the classes pass by in tiles under a running maximum and sum."""
    i_row = tl.program_id(1)
    o_pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    top, bottom, weight_y = taps(i_row, h, H)
    left, right, weight_x = taps(o_pixel, w, W)
    p_top, p_bottom = logits + top.to(tl.int64) * w * P, logits + bottom.to(tl.int64) * w * P
    o_left, o_right = (left * P)[:, None], (right * P)[:, None]
    highest = tl.full((PIXELS,), float("-inf"), tl.float32)
    label = tl.zeros((PIXELS,), tl.int32)
    total = tl.zeros((PIXELS,), tl.float32)
    for start in range(0, P, CLASSES):
        o_class = start + tl.arange(0, CLASSES)[None, :]
        inside = o_class < P
        north = tl.load(p_top + o_left + o_class, mask=inside, other=0.0)
        south = tl.load(p_bottom + o_left + o_class, mask=inside, other=0.0)
        west = lerp(north, south, weight_y)
        north = tl.load(p_top + o_right + o_class, mask=inside, other=0.0)
        south = tl.load(p_bottom + o_right + o_class, mask=inside, other=0.0)
        tile = lerp(west, lerp(north, south, weight_y), weight_x[:, None])  # [PIXELS, CLASSES]
        tile = tl.where(inside, tile, float("-inf"))
        best, index = tl.max(tile, 1, return_indices=True)
        label = tl.where(best > highest, start + index, label)
        higher = tl.maximum(highest, best)
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(tile - higher[:, None]), 1)
        highest = higher
    inside = o_pixel < W
    offset = i_row.to(tl.int64) * W + o_pixel
    sure = 1.0 / total
    tl.store(confidence + offset, sure, mask=inside)
    tl.store(labels + offset, tl.where(sure >= threshold, label + 1, 0), mask=inside)
