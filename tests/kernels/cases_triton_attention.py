"""The Triton kernels against the float64 reference, on the GPU or in Triton's interpreter.

`test_triton.py` runs this file; by hand: `TRITON_INTERPRET=1 pytest tests/kernels/cases_triton_attention.py`.
"""

import numpy as np
import pytest
import torch
import triton.language as tl
from gem_fast.bench import gpu_check
from gem_fast.kernels import self_self_attention
from gem_fast.kernels.attention.reference import reference
from gem_fast.kernels.attention.triton import launch, triton_attention, why_not
from gem_fast.kernels.attention.triton.tiles import Tile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder, TensorHandle

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TILED_AND_RESIDENT = pytest.mark.parametrize("resident", [False, True], ids=["tiled", "resident"])


def make_qkv(B, N, H, D, dtype=torch.float32):
    """Projections whose tokens have norms of 0.2 to 5, as real ones do."""
    generator = torch.Generator().manual_seed(N * D)
    qkv = torch.randn(B, N, 3, H, D, generator=generator, dtype=torch.float64)
    norms = torch.empty(B, N, 3, H, 1, dtype=torch.float64).uniform_(0.2, 5, generator=generator)
    return (qkv / D**0.5 * norms).to(DEVICE, dtype)


def relative_error(qkv, c, iterations=1, projections=(0, 1, 2), normalize=True):
    """Error of the kernels against the reference in float64, as a share of the reference's norm."""
    options = {"iterations": iterations, "projections": projections, "normalize": normalize}
    c = torch.tensor(c, device=qkv.device)
    truth = reference(qkv.double(), c.double(), **options)
    result = triton_attention(qkv, c, **options)
    assert result.shape == truth.shape
    assert result.dtype == qkv.dtype
    assert result.is_contiguous()
    return ((result.double() - truth).norm() / truth.norm()).item()


def assert_as_exact_as_plain_torch(qkv, c, iterations):
    """An error of at most twice that of the plain equations in the same type."""
    temperature = torch.tensor([c], device=DEVICE)
    options = {"iterations": iterations, "projections": (0, 1, 2), "normalize": True}
    truth = reference(qkv.double(), temperature.double(), **options)
    plain = reference(qkv, temperature, **options)
    assert relative_error(qkv, [c], iterations) <= 2 * ((plain.double() - truth).norm() / truth.norm()).item()


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What `torch.empty` returns is full of NaN, so an element that is never written shows."""
    empty, new_empty, empty_like = torch.empty, torch.Tensor.new_empty, torch.empty_like
    monkeypatch.setattr(launch.torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
    monkeypatch.setattr(launch.torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(torch.nan))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: new_empty(*a, **k).fill_(torch.nan))


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    """The interpreter drops arguments that a kernel does not have; the compiler refuses them."""
    launched = InterpretedFunction.run

    def run(kernel, *args, **options):
        unknown = set(options) - set(kernel.arg_names) - {"grid", "warmup", "num_warps", "num_stages"}
        assert not unknown, f"{kernel.fn.__name__} has no arguments {unknown}"
        return launched(kernel, *args, **options)

    monkeypatch.setattr(InterpretedFunction, "run", run)


@pytest.fixture
def choose(monkeypatch):
    """Force the tiled kernels, or the resident one where there is a tile for it."""

    def choose(resident):
        def is_resident(device, heads, N, width, dtype):
            tile = launch.chosen_tile(device, "resident", heads, N, width, dtype)
            return resident and N <= 64 and tile is not None

        monkeypatch.setattr(launch, "is_resident", is_resident)

    return choose


@TILED_AND_RESIDENT
@pytest.mark.parametrize("N", [1, 2, 63, 65])
@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_awkward_lengths(choose, resident, N, iterations):
    choose(resident)
    assert relative_error(make_qkv(1, N, 2, 32), [3.5], iterations, (0, 2)) < 1e-6


@TILED_AND_RESIDENT
@pytest.mark.parametrize("D", [8, 32, 64, 72, 80, 88, 96, 104, 112, 128])
def test_widths(choose, resident, D):
    choose(resident)
    assert relative_error(make_qkv(1, 37, 1, D), [3.5]) < 1e-6


@pytest.fixture
def large_tiles(monkeypatch):
    """Tiles that no GPU has room for, so that the interpreter has few to walk through."""
    if DEVICE == "cpu":
        monkeypatch.setattr(launch, "chosen_tile", lambda *_: Tile(256, 256, 4, 1))


@pytest.mark.parametrize("D", [32, 64, 80, 88, 96, 104, 128])
@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_every_tower_at_224_pixels(large_tiles, D, iterations):
    assert relative_error(make_qkv(1, 257, 1, D), [3.5], iterations, (1, 2)) < 1e-6


@pytest.mark.parametrize(("N", "D"), [(197, 64), (785, 64), (785, 80), (1025, 88), (2049, 64)])
@pytest.mark.parametrize("iterations", [0, 1])
def test_lengths_of_real_models(large_tiles, N, D, iterations):
    assert relative_error(make_qkv(1, N, 1, D), [3.5], iterations, (0, 2) if N < 1000 else (1,)) < 1e-6


def test_a_long_sequence_in_the_tiles_of_the_table():
    """13 tiles of rows, 25 of keys."""
    assert relative_error(make_qkv(1, 785, 1, 64), [3.5], projections=(1,)) < 1e-6


@pytest.mark.parametrize(("N", "D"), [(197, 32), (257, 80), (785, 64)])
def test_rows_of_any_norm_of_real_models(large_tiles, N, D):
    qkv = make_qkv(1, N, 1, D)
    assert relative_error(qkv, [D**-0.5], 0, (2,), normalize=False) < 1e-6
    assert relative_error(qkv, [D**-0.5], 1, (0,), normalize=False) < 1e-5


@pytest.mark.skipif(DEVICE == "cuda", reason="not every GPU has room for it")
@pytest.mark.parametrize("N", [65, 100, 128])
@pytest.mark.parametrize("D", [32, 64])
def test_a_head_of_up_to_128_tokens_is_resident(monkeypatch, N, D):
    monkeypatch.setattr(launch, "is_resident", lambda *_: True)
    monkeypatch.setattr(launch, "chosen_tile", lambda *_: Tile(128, 128, 8, 1))
    assert relative_error(make_qkv(1, N, 2, D), [3.5], 2, (0, 2)) < 1e-6


@pytest.mark.parametrize("iterations", [0, 1])
@pytest.mark.parametrize("N", [257, 785])
def test_slices_zero_rows_and_temperatures_of_real_lengths(large_tiles, N, iterations):
    """Every second token and one head of a wider buffer, tokens of zero, a temperature for each image."""
    wide = make_qkv(2, 2 * N, 2, 48)
    wide[0, [0, 6, 2 * N - 2]] = 0
    assert relative_error(wide[:, ::2, :, 1:, 8:40], [0.5, 20.0], iterations, (0, 2)) < 1e-6


def factor(handle, tf32):
    """What a tensor core multiplies: float32 of bfloat16, or of TF32, whose last 13 bits it does not read."""
    if handle.dtype.scalar == tl.bfloat16:
        return (handle.data.astype(np.uint32) << 16).view(np.float32)
    wide = handle.data.astype(np.float32)
    return (wide.view(np.uint32) & 0xFFFFE000).view(np.float32) if tf32 else wide


@pytest.fixture
def tensor_cores(monkeypatch):
    """Products of bfloat16 and TF32 as on a GPU: the interpreter would multiply the bits of the one as integers, take
    the other for float32, and cast to bfloat16 by cutting."""
    plain_cast = InterpreterBuilder.cast_impl

    def cast(builder, source, dtype):
        if (source.dtype.scalar, dtype.scalar) == (tl.float32, tl.bfloat16):
            rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
            return TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)
        return plain_cast(builder, source, dtype)

    def dot(builder, a, b, d, input_precision, _):
        tf32 = input_precision.name == "TF32"
        return TensorHandle(factor(a, tf32) @ factor(b, tf32) + d.data, d.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast)
    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU has them")
@TILED_AND_RESIDENT
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize(("D", "c"), [(64, 8.0), (80, 2.0)])
def test_bfloat16_is_as_exact_as_plain_torch(choose, tensor_cores, resident, iterations, D, c):
    choose(resident)
    assert_as_exact_as_plain_torch(make_qkv(1, 64, 2, D, torch.bfloat16), c, iterations)


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU has them")
@pytest.mark.parametrize(("iterations", "D"), [(0, 64), (1, 80), (3, 64)])
def test_tf32_is_as_exact_as_plain_torch(monkeypatch, tensor_cores, iterations, D):
    """Plain torch on the same tensor cores."""
    monkeypatch.setattr(launch, "precision", lambda *_: "tf32")
    qkv = make_qkv(1, 65, 1, D)
    assert relative_error(qkv, [4.0], iterations) > 1e-5
    multiply = torch.Tensor.__matmul__

    def cut(x):
        return (x.contiguous().view(torch.int32) & -0x2000).view(torch.float32) if x.dtype == torch.float32 else x

    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: multiply(cut(a), cut(b)))
    assert_as_exact_as_plain_torch(qkv, 4.0, iterations)


@TILED_AND_RESIDENT
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("D", [64, 80])
def test_float16_is_as_exact_as_plain_torch(choose, resident, iterations, D):
    choose(resident)
    assert_as_exact_as_plain_torch(make_qkv(1, 65, 2, D, torch.float16), 4.0, iterations)


@TILED_AND_RESIDENT
@pytest.mark.parametrize("projections", [(0,), (1,), (2,), (0, 1), (1, 2), (2, 0), (0, 1, 2)])
def test_unwanted_projections_are_never_read(choose, resident, projections):
    choose(resident)
    qkv = make_qkv(2, 40, 1, 32)
    for unwanted in {0, 1} - set(projections):
        qkv[:, :, unwanted] = torch.nan
    assert torch.isfinite(
        triton_attention(qkv, torch.ones(2, device=DEVICE), iterations=1, projections=projections, normalize=True)
    ).all()
    assert relative_error(torch.nan_to_num(qkv), [1.5, 6.0], projections=projections) < 1e-6


@TILED_AND_RESIDENT
def test_strided_and_sliced_input(choose, resident):
    """A transposed buffer, every second token, a slice of heads, channels 8 to 40."""
    choose(resident)
    wide = make_qkv(2, 94, 5, 48).transpose(1, 3).contiguous().transpose(1, 3)
    assert relative_error(wide[:, ::2, :, 1:3, 8:40], [2.0, 3.0]) < 1e-6


@TILED_AND_RESIDENT
@pytest.mark.parametrize("c", [1e-4, 1e4])
@pytest.mark.parametrize("iterations", [0, 1])
def test_extreme_temperatures(choose, resident, c, iterations):
    """At 1e4 a logit of float32 carries an error of 1e-3, which the exponential passes on."""
    choose(resident)
    assert relative_error(make_qkv(1, 65, 1, 64), [c], iterations) < (1e-6 if c < 1 else 5e-3)


@TILED_AND_RESIDENT
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("c", [1e4, 1e30])
def test_a_temperature_beyond_any_precision_stays_finite(choose, resident, dtype, c):
    choose(resident)
    options = {"iterations": 1, "projections": (0, 1, 2), "normalize": True}
    result = triton_attention(make_qkv(1, 65, 1, 64, dtype), torch.tensor([c], device=DEVICE), **options)
    assert torch.isfinite(result).all()


@TILED_AND_RESIDENT
@pytest.mark.parametrize("c", [3.0, 1e4])
@pytest.mark.parametrize("iterations", [0, 1])
def test_zero_tokens_attend_uniformly(choose, resident, c, iterations):
    choose(resident)
    qkv = make_qkv(1, 33, 1, 32)
    qkv[:, 7, :2] = 0
    qkv[:, 32, 0] = 0
    assert relative_error(qkv, [c], iterations, (0, 1)) < (1e-6 if c < 10 else 5e-3)


@pytest.mark.parametrize("iterations", [0, 2])
@pytest.mark.parametrize("N", [1, 64, 65])
def test_rows_of_any_norm(iterations, N):
    """`normalize=False`; CLIP Surgery's value-value attention is its case without iterations."""
    qkv = make_qkv(2, N, 1, 24)
    assert relative_error(qkv, [0.125, 1.0], 0, (2,), normalize=False) < 1e-6
    assert relative_error(qkv, [0.125, 1.0], iterations, (0, 1), normalize=False) < 1e-5


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    B=st.integers(1, 3),
    N=st.integers(1, 70),
    H=st.integers(1, 3),
    D=st.integers(1, 128),
    iterations=st.integers(0, 2),
    projections=st.sampled_from([(0,), (2,), (0, 2), (0, 1, 2)]),
    resident=st.booleans(),
)
def test_any_shape(choose, B, N, H, D, iterations, projections, resident):
    choose(resident)
    temperatures = [1.0 + 2.0 * i for i in range(B)]
    assert relative_error(make_qkv(B, N, H, D), temperatures, iterations, projections) < 2e-6


@pytest.mark.parametrize(
    ("qkv", "reason"),
    [
        (torch.zeros(1, 4, 3, 1, 8, dtype=torch.float64), "float64"),
        (torch.zeros(1, 4, 3, 1, 129), "129"),
        (torch.zeros(1, 4, 3, 8, 2).transpose(3, 4), "contiguous"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_reason(qkv, reason):
    qkv = qkv.to(DEVICE)
    assert reason in (why_not(qkv) or "")
    with pytest.raises(ValueError, match=reason):
        triton_attention(qkv, torch.ones(1, device=DEVICE), iterations=1, projections=(0,), normalize=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["fp16", "fp32"])
def test_gpu_check_tells_right_from_wrong(monkeypatch, dtype):
    monkeypatch.setitem(gpu_check.TOWERS, "small", (1, 40, 1, 32))
    assert gpu_check.check("small", dtype, 1, DEVICE).right
    monkeypatch.setattr(gpu_check, "triton_attention", lambda *a, **k: 1.01 * triton_attention(*a, **k))
    case = gpu_check.check("small", dtype, 1, DEVICE)
    assert not case.right
    assert case.triton_ms is None
    assert "WRONG" in gpu_check.line(case)


def test_opcheck_compile_and_export():
    class Attention(torch.nn.Module):
        def forward(self, qkv, c):
            return self_self_attention(qkv * 1.0, c, backend="triton") + 1

    qkv, c, attention = make_qkv(2, 30, 2, 32), torch.tensor([2.0, 5.0], device=DEVICE), Attention()
    operation = torch.ops.gem_fast.self_self_attention_triton.default
    torch.library.opcheck(operation, (qkv, c, 1, [0, 2], True))
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(qkv, c), attention(qkv, c))
    shapes = {"qkv": {1: torch.export.Dim("tokens", min=2, max=500)}, "c": None}
    exported = torch.export.export(attention, (qkv, c), dynamic_shapes=shapes)
    longer = make_qkv(2, 77, 2, 32)
    torch.testing.assert_close(exported.module()(longer, c), attention(longer, c))
