"""Rows of a head on chip: a tuple of one or two tiles whose widths are powers of two, such as 64 + 16 for D = 80."""

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def load_rows(base, rows, stride, N, D: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr):
    """Rows [R, D] of a strided matrix; zero beyond row N and column D."""
    start = base + rows.to(tl.int64)[:, None] * stride
    column = tl.arange(0, MAIN)[None, :]
    first = tl.load(start + column, mask=(rows < N)[:, None] & (column < D), other=0.0)
    if REST:
        column = MAIN + tl.arange(0, REST)[None, :]
        return first, tl.load(start + column, mask=(rows < N)[:, None] & (column < D), other=0.0)
    else:
        return (first,)


@triton.jit
def store_rows(base, rows, stride, N, D: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr, parts):
    """Store rows [R, D] to a strided matrix [N, D]."""
    start = base + rows.to(tl.int64)[:, None] * stride
    column = tl.arange(0, MAIN)[None, :]
    tl.store(start + column, parts[0].to(base.dtype.element_ty), mask=(rows < N)[:, None] & (column < D))
    if REST:
        column = MAIN + tl.arange(0, REST)[None, :]
        tl.store(start + column, parts[1].to(base.dtype.element_ty), mask=(rows < N)[:, None] & (column < D))


@triton.jit
def load_packed(base, R: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr):
    """R whole rows of the packed workspace [.., MAIN + REST]: no masks, constant offsets."""
    start = base + tl.arange(0, R)[:, None] * (MAIN + REST)
    first = tl.load(start + tl.arange(0, MAIN)[None, :])
    if REST:
        return first, tl.load(start + MAIN + tl.arange(0, REST)[None, :])
    else:
        return (first,)


@triton.jit
def zero_rows(R: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr):
    first = tl.zeros((R, MAIN), tl.float32)
    if REST:
        return first, tl.zeros((R, REST), tl.float32)
    else:
        return (first,)


@triton.jit
def scaled(parts, factor):
    """Each row times its factor, in float32."""
    first = parts[0].to(tl.float32) * factor[:, None]
    if len(parts) > 1:
        return first, parts[1].to(tl.float32) * factor[:, None]
    else:
        return (first,)


@triton.jit
def added(a, b):
    first = a[0] + b[0]
    if len(a) > 1:
        return first, a[1] + b[1]
    else:
        return (first,)


@triton.jit
def cast(parts, dtype: tl.constexpr):
    first = parts[0].to(dtype)
    if len(parts) > 1:
        return first, parts[1].to(dtype)
    else:
        return (first,)


@triton.jit
def nearest_tf32(tile):
    """Float32 rounded to the 10 bits of TF32: tensor cores would cut them."""
    nearest = (tile.to(tl.uint32, bitcast=True) + 0x1000) & 0xFFFFE000
    return tl.where(tile == tile, nearest.to(tl.float32, bitcast=True), tile)  # a GPU's NaN, 0x7fffffff, would be -0


@triton.jit
def rounded(parts, PRECISION: tl.constexpr):
    """Rows as they are multiplied: float32 in TF32 to nearest, anything else as it is."""
    if PRECISION != "tf32":
        return parts
    elif len(parts) > 1:
        return nearest_tf32(parts[0]), nearest_tf32(parts[1])
    else:
        return (nearest_tf32(parts[0]),)


@triton.jit
def squared_norm(parts):
    """|p|² of each row [R], in float32."""
    wide = parts[0].to(tl.float32)
    total = tl.sum(wide * wide, 1)
    if len(parts) > 1:
        wide = parts[1].to(tl.float32)
        total += tl.sum(wide * wide, 1)
    return total


@triton.jit
def unit(parts):
    """Rows of norm one in float32; the smallest norm is 1e-12, as in torch's normalize, so zero rows stay zero."""
    return scaled(parts, tl.rsqrt(tl.maximum(squared_norm(parts), 1e-24)))


@triton.jit
def similarity(query, key, PRECISION: tl.constexpr):
    """query · keyᵀ, [R, K] in float32."""
    s = tl.dot(query[0], tl.trans(key[0]), input_precision=PRECISION)
    if len(query) > 1:
        s = tl.dot(query[1], tl.trans(key[1]), s, input_precision=PRECISION)
    return s


@triton.jit
def weighted_sum(weights, value, acc, PRECISION: tl.constexpr):
    """acc + weights · value, the weights rounded to the type of the value, or to TF32."""
    weights = weights.to(value[0].dtype)
    if PRECISION == "tf32":
        # Tensor cores cut the rest. A NaN may become -0 here: a value or the row sum has it too.
        weights = (weights.to(tl.uint32, bitcast=True) + 0x1000).to(tl.float32, bitcast=True)
    first = _product_added(weights, value[0], acc[0], PRECISION)
    if len(value) > 1:
        return first, _product_added(weights, value[1], acc[1], PRECISION)
    else:
        return (first,)


@triton.jit
def _product_added(a, b, acc, PRECISION: tl.constexpr):
    """acc + a · b. Exact float32 is added term by term: a step's by themselves, so that a sum of thousands is rounded
    once a step. By `fma`, since the compiler folds a plain sum back into the product."""
    if PRECISION == "ieee" and b.dtype == tl.float32:
        return tl.fma(tl.dot(a, b, input_precision=PRECISION), 1.0, acc)
    else:
        return tl.dot(a, b, acc, input_precision=PRECISION)
