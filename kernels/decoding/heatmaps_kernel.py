"""Device code of heat maps: bilinear interpolation, each map stretched between its own extremes."""

import triton
import triton.language as tl

from .taps import corner, lerp, taps


@triton.jit
def upsampled(plane, o_row, o_column, h, w, H, W):
    """Values of the upsampled map at rows and columns that broadcast."""
    top, bottom, weight_y = taps(o_row, h, H)
    left, right, weight_x = taps(o_column, w, W)
    top, bottom = plane + top * w, plane + bottom * w
    west = lerp(tl.load(top + left).to(tl.float32), tl.load(bottom + left).to(tl.float32), weight_y)
    east = lerp(tl.load(top + right).to(tl.float32), tl.load(bottom + right).to(tl.float32), weight_y)
    return lerp(west, east, weight_x)


@triton.jit
def extremes_kernel(
    scores,  # [P, h, w]
    extremes,  # [P, 2], float32
    h,
    w,
    H,
    W,
    PIXELS: tl.constexpr,
):
    """Lowest value and contrast of each upsampled map, one prompt a program.

    Between four neighbouring inputs the map is linear along each axis, so over the pixels that lie there it is extreme
    at one of the outermost four: `corner` visits those alone. A map with a NaN is NaN throughout.
    """
    i_prompt = tl.program_id(0).to(tl.int64)
    plane = scores + i_prompt * h * w
    low = tl.full((PIXELS, PIXELS), float("inf"), tl.float32)
    high = tl.full((PIXELS, PIXELS), float("-inf"), tl.float32)
    wrong = tl.zeros((PIXELS, PIXELS), tl.int32)
    o_corner = tl.arange(0, PIXELS)
    for y in range(0, 2 * h, PIXELS):
        o_row = corner(tl.minimum(y + o_corner, 2 * h - 1), h, H)
        for x in range(0, 2 * w, PIXELS):
            o_column = corner(tl.minimum(x + o_corner, 2 * w - 1), w, W)
            value = upsampled(plane, o_row[:, None], o_column[None, :], h, w, H, W)
            low, high = tl.minimum(low, value), tl.maximum(high, value)
            wrong = wrong | (value != value).to(tl.int32)
    lowest = tl.where(tl.max(wrong) > 0, float("nan"), tl.min(low))
    tl.store(extremes + 2 * i_prompt, lowest)
    tl.store(extremes + 2 * i_prompt + 1, tl.max(high) - lowest)


@triton.jit
def heatmaps_kernel(
    scores,  # [P, h, w]
    extremes,  # [P, 2], float32
    heatmaps,  # [P, H, W]
    h,
    w,
    H,
    W,
    PIXELS: tl.constexpr,
):
    """(upsampled - lowest) / contrast for a run of pixels of one output row; 0 where there is no contrast."""
    i_line = tl.program_id(0)
    i_prompt = (i_line // H).to(tl.int64)
    o_column = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    value = upsampled(scores + i_prompt * h * w, i_line % H, o_column, h, w, H, W)
    lowest, contrast = tl.load(extremes + 2 * i_prompt), tl.load(extremes + 2 * i_prompt + 1)
    stretched = tl.div_rn(value - lowest, tl.where(contrast == 0, 1.0, contrast))
    # Rounding may carry a pixel beyond the corners; a comparison with NaN is false.
    stretched = tl.where(stretched < 0.0, 0.0, tl.where(stretched > 1.0, 1.0, stretched))
    o_pixel = i_line.to(tl.int64) * W + o_column
    tl.store(heatmaps + o_pixel, stretched.to(heatmaps.dtype.element_ty), mask=o_column < W)
