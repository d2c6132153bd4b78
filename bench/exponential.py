"""Would a share of the exponentials on the FMA pipe help? `python -m gem_fast.bench.exponential [folder]`.

Compiles the refinement kernel with none, some and all of its exponentials computed by a polynomial and writes
`exponential.md`: what each variant asks of the pipes. Predicted from compiled code, not measured.
"""

import multiprocessing
import struct
import sys
from pathlib import Path

import numpy as np
from gem_fast.kernels.attention.triton.tiles import Tile

from gem_fast.writing import write_whole

from .ahead import Static, compile_for
from .gpus import B200, H100, cycles

# 2^f on -1/2..1/2, smallest largest relative error, by degree; the constant first.
COEFFICIENTS = {
    2: (1.0004432, 0.70344824, 0.23842886),
    3: (0.99992806, 0.69326097, 0.24261117, 0.05517168),
}
PACK = 8  # elements of which a number goes by the polynomial
VARIANTS = ((0, 3), (1, 3), (2, 3), (2, 2), (4, 3), (8, 3))  # of PACK elements, and the degree
TILE = Tile(128, 64, 8, 3)
_LOWEST, _ROUND = -126.0, 1.5 * 2**23


def polynomial_exp2(x: np.ndarray, degree: int) -> np.ndarray:
    """2^x for x ≤ 0 in float32, step by step as the PTX computes it; 2^-126 and what the polynomial errs below that."""
    x = np.maximum(x.astype(np.float32), np.float32(_LOWEST))
    shifted = x + np.float32(_ROUND)
    f = x - (shifted - np.float32(_ROUND))
    p = np.full_like(f, COEFFICIENTS[degree][-1])
    for coefficient in COEFFICIENTS[degree][-2::-1]:
        p = p * f + np.float32(coefficient)
    return (p.view(np.int32) + (shifted.view(np.int32) << 23)).view(np.float32)


def ptx(share: int, degree: int) -> str:
    """PTX of 2^x for PACK elements, `share` of them by the polynomial: x = n + f, n rounded by adding 1.5·2^23."""
    lines = []
    for i in range(PACK):
        y, x = f"${i}", f"${PACK + i}"
        if i >= share:
            lines.append(f"ex2.approx.ftz.f32 {y}, {x};")
            continue
        first, *rest = [_hex(c) for c in reversed(COEFFICIENTS[degree])]
        horner = " ".join(f"fma.rn.ftz.f32 p, p, f, {c};" for c in rest)
        lines.append(
            f"{{ .reg .f32 x, t, n, f, p; .reg .b32 e, b; max.ftz.f32 x, {x}, {_hex(_LOWEST)}; "
            f"add.rn.ftz.f32 t, x, {_hex(_ROUND)}; sub.rn.ftz.f32 n, t, {_hex(_ROUND)}; sub.rn.ftz.f32 f, x, n; "
            f"mov.b32 p, {first}; {horner} mov.b32 e, t; shl.b32 e, e, 23; mov.b32 b, p; add.s32 b, b, e; "
            f"mov.b32 {y}, b; }}"
        )
    return "\n".join(lines)


def _hex(value: float) -> str:
    return "0f" + struct.pack(">f", value).hex().upper()


def compile_variant(arch: str, share: int, degree: int) -> Static:
    from .exponential_kernel import refine_by_polynomial_kernel

    constants = {
        "MAIN": 64, "REST": 0, "ROWS": TILE.rows, "KEYS": TILE.keys, "STEEPEST": 2.0**13, "PRECISION": "ieee",
        "EXPONENTIAL": ptx(share, degree), "CONSTRAINTS": ",".join(["=r"] * PACK + ["r"] * PACK), "PACK": PACK,
    }  # fmt: skip
    return compile_for(arch, refine_by_polynomial_kernel, constants, "bf16", TILE.warps, TILE.stages)


def largest_error(degree: int) -> float:
    """Relative error of the polynomial against float64, over exponents down to -29 (c = 10)."""
    x = np.linspace(-29, 0, 1_000_001).astype(np.float32)
    exact = np.exp2(x.astype(np.float64))
    return float(np.max(np.abs(polynomial_exp2(x, degree) - exact) / exact))


INTRO = """# Exponentials on the FMA pipe

**Predicted from compiled code, not measured.** Written by `python -m gem_fast.bench.exponential`.

Refinement, bf16, D = 64, 128 rows × 64 keys, 8 warps, 3 stages; of each 8 exponentials a number is computed by a
polynomial (Cody–Waite: x = n + f, 2^f by Horner's rule, n added to the exponent's bits) instead of the special
function unit. Clocks of a multiprocessor for one step: tensor, exp (special function unit), fma (FADD, FMUL, FFMA) and
issue slots. *overlapped* is the busiest of them; *alternating* adds the products to the busiest of the rest.

| GPU | by polynomial | degree | registers | loop | tensor | exp | fma | issue | overlapped | alternating |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def verdict() -> str:
    errors = {degree: largest_error(degree) for degree in COEFFICIENTS}
    return f"""
Accuracy: the largest relative error is {errors[2]:.1e} at degree 2 and {errors[3]:.1e} at degree 3. The weights are
rounded before the second product, by 2^-8 = 3.9e-3 of themselves at most in bf16 and 2^-11 = 4.9e-4 in fp16: degree 3
hides in both, degree 2 would add nearly half to the error of bf16.

Verdict: not taken up. On Hopper the products need as many clocks as the exponentials, so where they overlap no share
gains anything, and refinement fits a multiprocessor twice to let them. If they never overlapped, a quarter would save
a tenth; the assignment, which fits once, may lie nearer to that. On sm_100, whose tensor cores are twice as fast, an
eighth would save an eighth at the very best, before issue slots bind. That is too little, on paper, for a fork of the
kernels in PTX: to be tried again by whoever can time it.
"""


def main(folder: str = "bench/reports") -> None:
    """Compile every variant for Hopper and Blackwell and write the page."""
    jobs = [(gpu, share, degree) for gpu in (H100, B200) for share, degree in VARIANTS]
    with multiprocessing.get_context("spawn").Pool() as pool:
        results = pool.starmap(compile_variant, [(gpu.arch, share, degree) for gpu, share, degree in jobs])
    page = INTRO
    for (gpu, share, degree), it in zip(jobs, results, strict=True):
        c = cycles(it, gpu, TILE, 64)
        numbers = [c.tensor, c.exp, c.fma, c.issue, c.overlapped, c.alternating]
        shown = " | ".join(f"{number:.0f}" for number in numbers)
        variant = f"{share}/{PACK} | {degree if share else '–'}"
        page += f"| {gpu.name} ({gpu.arch}) | {variant} | {it.registers} | {it.loop_length} | {shown} |\n"
    write_whole(Path(folder) / "exponential.md", (page + verdict()).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
