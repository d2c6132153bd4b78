"""The Triton kernels in every type as exact as plain torch, and at extreme temperatures. `test_triton.py` runs them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import triton.language as tl
from gem_fast.kernels import first_use, pair_attention
from gem_fast.kernels.attention.reference import reference
from gem_fast.kernels.attention.self_self import OPERATION
from gem_fast.kernels.attention.triton import call, triton_attention
from gem_fast.kernels.attention.triton.tile_search import Problem
from gem_fast.kernels.attention.triton.tile_trials import make_bench
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from tests.kernels.triton_attention import (
    DEVICE,
    TILED_AND_RESIDENT,
    assert_as_exact_as_plain_torch,
    make_qkv,
    relative_error,
)

pytestmark = pytest.mark.usefixtures("surroundings")

EVERY_KERNEL = pytest.mark.parametrize(
    ("resident", "normalize"), [(False, True), (True, True), (False, False)], ids=["tiled", "resident", "any norm"]
)
GPU_NAN = 0x7FFFFFFF  # what arithmetic on a GPU makes of any NaN


def factor(handle, tf32):
    """What a tensor core multiplies: float32 of bfloat16, or of TF32, whose last 13 bits it does not read."""
    if handle.dtype.scalar == tl.bfloat16:
        return (handle.data.astype(np.uint32) << 16).view(np.float32)
    wide = handle.data.astype(np.float32)
    return (wide.view(np.uint32) & 0xFFFFE000).view(np.float32) if tf32 else wide


@pytest.fixture
def tensor_cores(monkeypatch, nearest_bfloat16):
    """Products of bfloat16 and TF32 as on a GPU: the interpreter would multiply the bits of the one as integers, and
    take the other for float32. And the NaN of an exponential, which is always the same."""
    plain_exp2 = InterpreterBuilder.create_exp2

    def exp2(builder, x):
        power = plain_exp2(builder, x)
        power.data.view(np.uint32)[np.isnan(power.data)] = GPU_NAN
        return power

    def dot(builder, a, b, d, input_precision, _):
        tf32 = input_precision.name == "TF32"
        return TensorHandle(factor(a, tf32) @ factor(b, tf32) + d.data, d.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_exp2", exp2)
    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU has them")
@TILED_AND_RESIDENT
@pytest.mark.parametrize(("iterations", "D", "c"), [(0, 80, 2.0), (1, 64, 8.0), (3, 80, 2.0)])
def test_bfloat16_is_as_exact_as_plain_torch(choose, tensor_cores, resident, iterations, D, c):
    choose(resident)
    assert_as_exact_as_plain_torch(make_qkv(1, 64, 2, D, torch.bfloat16), c, iterations)


def round_products_of_torch(monkeypatch):
    """Plain torch in TF32: cuBLAS rounds float32 to 11 significant bits, to nearest."""
    multiply = torch.Tensor.__matmul__

    def nearest(x):
        fraction, exponent = torch.frexp(x)
        return torch.ldexp((fraction * 2**11).round(), exponent - 11) if x.dtype == torch.float32 else x

    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: multiply(nearest(a), nearest(b)))


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU has them")
def test_what_a_first_use_tries_is_right_in_tf32(monkeypatch, tensor_cores):
    """An H200 took it for wrong: plain torch multiplies float32 exactly in some products, whatever is allowed."""
    row = next(row for row in OPERATION.backends if row.name == "triton")
    paying = replace(row, pays=lambda *_: True, trials=lambda *where: [list(row.trials(*where))[2]])
    monkeypatch.setattr(call, "precision", lambda *_: "tf32")
    assert "it is wrong" in first_use.why_wrong(OPERATION, paying, torch.float32, torch.device(DEVICE))
    monkeypatch.setattr(first_use, "tf32_is_allowed", lambda: True)
    assert first_use.why_wrong(OPERATION, paying, torch.float32, torch.device(DEVICE)) == ""
    off = replace(paying, run=lambda *arguments: 1.01 * row.run(*arguments))
    assert "it is wrong" in first_use.why_wrong(OPERATION, off, torch.float32, torch.device(DEVICE))


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU has them")
def test_tune_holds_tf32_to_its_own_rounding(monkeypatch, tensor_cores):
    monkeypatch.setattr(call, "precision", lambda *_: "tf32")
    bench = make_bench(Problem(1, 40, 1, 32, "tf32"), torch.device(DEVICE), lambda trial: None)
    assert 0.05 < bench.error({"iterations": 1, "projections": (0, 1, 2), "normalize": True}, {}) <= 1


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU has them")
@EVERY_KERNEL
@pytest.mark.parametrize(("iterations", "D", "mean"), [(0, 64, 1.0), (1, 80, 1.0), (3, 64, 0.0)])
def test_tf32_is_as_exact_as_plain_torch(monkeypatch, choose, tensor_cores, resident, normalize, iterations, D, mean):
    """Plain torch's factors are rounded; ours reach tensor cores that cut, which errs to one side and adds up."""
    choose(resident)
    monkeypatch.setattr(call, "precision", lambda *_: "tf32")
    c = 4.0 if normalize else 1.0
    qkv = make_qkv(1, 63, 1, D)
    qkv[:, :, 2] += mean
    assert relative_error(qkv, [c], iterations, normalize=normalize) > 1e-5
    round_products_of_torch(monkeypatch)
    assert_as_exact_as_plain_torch(qkv, c, iterations, normalize)


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU has them")
@pytest.mark.parametrize("near", [None, (7, 9)], ids=["plain", "near"])
@pytest.mark.parametrize("kind", ["bf16", "tf32"])
def test_pairs_are_as_exact_as_plain_torch(monkeypatch, tensor_cores, kind, near):
    qkv = make_qkv(1, 64, 2, 72, torch.bfloat16 if kind == "bf16" else torch.float32)
    options = {"pairs": "qq+kk", "grid": near, "sigma": 5.0 if near else None}
    truth = pair_attention(qkv.double(), 0.5, backend="reference", **options)
    if kind == "tf32":
        monkeypatch.setattr(call, "precision", lambda *_: "tf32")
    found = pair_attention(qkv, 0.5, backend="triton", **options)
    if kind == "tf32":
        assert (found - truth).norm() > 1e-5 * truth.norm()
        round_products_of_torch(monkeypatch)
    plain = pair_attention(qkv, 0.5, backend="reference", **options)
    assert (found - truth).norm() <= 2 * (plain - truth).norm()


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU has them")
@EVERY_KERNEL
@pytest.mark.parametrize(("iterations", "part"), [(0, 0), (1, 0), (1, 2)])
def test_rounding_to_tf32_keeps_nan(monkeypatch, choose, tensor_cores, resident, normalize, iterations, part):
    """Also where the exponential's NaN is the one that the rounding would carry to zero."""
    choose(resident)
    monkeypatch.setattr(call, "precision", lambda *_: "tf32")
    qkv = make_qkv(1, 33, 2, 32)
    qkv.view(torch.int32)[0, 7, part, 1, 5] = GPU_NAN
    options = {"iterations": iterations, "projections": (0,), "normalize": normalize}
    truth = reference(qkv.double(), torch.ones(1).double(), **options)
    assert truth.isnan().any()
    assert torch.equal(triton_attention(qkv, torch.ones(1), **options).isnan(), truth.isnan())


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU has them")
@TILED_AND_RESIDENT
@pytest.mark.parametrize("iterations", [0, 1])
def test_zero_tokens_attend_uniformly_in_tf32(monkeypatch, choose, tensor_cores, resident, iterations):
    choose(resident)
    monkeypatch.setattr(call, "precision", lambda *_: "tf32")
    qkv = make_qkv(1, 33, 1, 32)
    qkv[:, 7, 0] = 0
    options = {"iterations": iterations, "projections": (0,), "normalize": True}
    c = torch.tensor([3.0])
    truth = reference(qkv.double(), c.double(), **options)[0, 7]
    assert (triton_attention(qkv, c, **options)[0, 7] - truth).norm() < 2**-10 * truth.norm()


@TILED_AND_RESIDENT
@pytest.mark.parametrize(("iterations", "D"), [(0, 64), (1, 80), (3, 64)])
def test_float16_is_as_exact_as_plain_torch(choose, resident, iterations, D):
    choose(resident)
    assert_as_exact_as_plain_torch(make_qkv(1, 65, 2, D, torch.float16), 4.0, iterations)


@TILED_AND_RESIDENT
@pytest.mark.parametrize(("c", "iterations"), [(1e-4, 1), (1e4, 0), (1e4, 1)])
def test_extreme_temperatures(choose, resident, c, iterations):
    """At 1e4 a logit of float32 carries an error of 1e-3, which the exponential passes on."""
    choose(resident)
    assert relative_error(make_qkv(1, 65, 1, 64), [c], iterations) < (1e-6 if c < 1 else 5e-3)


@TILED_AND_RESIDENT
@pytest.mark.parametrize(("c", "dtype"), [(1e4, torch.float16), (1e30, torch.float16), (1e30, torch.float32)], ids=str)
def test_a_temperature_beyond_any_precision_stays_finite(choose, resident, dtype, c):
    choose(resident)
    options = {"iterations": 1, "projections": (0, 1, 2), "normalize": True}
    result = triton_attention(make_qkv(1, 65, 1, 64, dtype), torch.tensor([c], device=DEVICE), **options)
    assert torch.isfinite(result).all()


@TILED_AND_RESIDENT
@pytest.mark.parametrize(("c", "iterations"), [(3.0, 0), (3.0, 1), (1e4, 1)])
def test_zero_tokens_attend_uniformly(choose, resident, c, iterations):
    choose(resident)
    qkv = make_qkv(1, 33, 1, 32)
    qkv[:, 7, :2] = 0
    qkv[:, 32, 0] = 0
    assert relative_error(qkv, [c], iterations, (0, 1)) < (1e-6 if c < 10 else 5e-3)
