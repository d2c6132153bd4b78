"""Device code of score decoding: bilinear interpolation, softmax over the classes, argmax and threshold."""

import triton
import triton.language as tl


@triton.jit
def taps(position, inputs):
    """The two source indices of an output position and the second one's weight, pixel centres at half integers."""
    position = tl.maximum(position, 0.0)
    first = tl.minimum(position.to(tl.int32), inputs - 1)
    return first, tl.minimum(first + 1, inputs - 1), position - first.to(tl.float32)


@triton.jit
def labels_kernel(
    logits,  # [h, w, P], float32
    labels,  # [H, W], int32
    confidence,  # [H, W], float32
    P,
    h,
    w,
    W,
    step_y,  # h / H
    step_x,  # w / W
    threshold,
    PIXELS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """A run of pixels of one output row; the classes pass by in tiles under a running maximum and sum."""
    i_row = tl.program_id(1)
    o_pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    top, bottom, weight_y = taps((i_row.to(tl.float32) + 0.5) * step_y - 0.5, h)
    left, right, weight_x = taps((o_pixel.to(tl.float32) + 0.5) * step_x - 0.5, w)
    p_top, p_bottom = logits + top.to(tl.int64) * w * P, logits + bottom.to(tl.int64) * w * P
    o_left, o_right = (left * P)[:, None], (right * P)[:, None]
    highest = tl.full((PIXELS,), float("-inf"), tl.float32)
    label = tl.zeros((PIXELS,), tl.int32)
    total = tl.zeros((PIXELS,), tl.float32)
    for start in range(0, P, CLASSES):
        o_class = start + tl.arange(0, CLASSES)[None, :]
        inside = o_class < P
        west = tl.load(p_top + o_left + o_class, mask=inside, other=0.0) * (1 - weight_y)
        west += tl.load(p_bottom + o_left + o_class, mask=inside, other=0.0) * weight_y
        east = tl.load(p_top + o_right + o_class, mask=inside, other=0.0) * (1 - weight_y)
        east += tl.load(p_bottom + o_right + o_class, mask=inside, other=0.0) * weight_y
        tile = west * (1 - weight_x)[:, None] + east * weight_x[:, None]  # [PIXELS, CLASSES]
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
