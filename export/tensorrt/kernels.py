"""The kernels of self-self attention with the parameters in TensorRT's order: inputs, sizes, outputs.

Each is the kernel of `kernels.attention.triton`, called with the strides of contiguous tensors: qkv [B, N, 3, H, D],
units [B, P, H, padded, MAIN + REST].
"""

import triton
import triton.language as tl
from gem_fast.kernels.attention.triton.assign import assign_kernel
from gem_fast.kernels.attention.triton.refine import normalize_kernel, refine_kernel


@triton.jit
def gem_normalize(
    qkv,
    N,
    padded,
    units,
    FIRST: tl.constexpr,  # the first projection, and the step to the next
    STEP: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
):
    normalize_kernel(
        qkv + FIRST * H * D, units, None, None, N * 3 * H * D, 3 * H * D, STEP * H * D, D, N, padded, H,
        D, MAIN, REST, ROWS, False, "ieee",
    )  # fmt: skip


@triton.jit
def gem_refine(
    units,
    inverse_temperature,
    qkv,  # says what N is
    N,
    padded,
    refined,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    STEEPEST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    refine_kernel(units, refined, inverse_temperature, N, padded, MAIN, REST, ROWS, KEYS, STEEPEST, PRECISION)


@triton.jit
def gem_assign(
    units,
    qkv,
    inverse_temperature,
    N,
    padded,
    out,
    P: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    STEEPEST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head = padded * (MAIN + REST)
    assign_kernel(
        units, qkv + 2 * H * D, out, inverse_temperature, P * H * head, MAIN + REST, H * head, head,
        N * 3 * H * D, 3 * H * D, D, N, P, D, MAIN, REST, ROWS, KEYS, False, STEEPEST, PRECISION,
    )  # fmt: skip
