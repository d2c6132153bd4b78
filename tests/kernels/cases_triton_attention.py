"""The Triton kernels against the float64 reference, on the GPU or in Triton's interpreter.

`test_triton.py` runs this file; by hand: `TRITON_INTERPRET=1 pytest tests/kernels/cases_triton_attention.py`.
"""

import pytest
import torch
from gem_fast.bench import gpu_check
from gem_fast.kernels.attention.reference import reference
from gem_fast.kernels.attention.triton import launch, triton_attention, why_not
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from triton.runtime.interpreter import InterpretedFunction

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
    """Force the tiled kernels or the resident one."""
    return lambda resident: monkeypatch.setattr(launch, "is_resident", lambda _d, _h, N, *_: resident and N <= 64)


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


@pytest.mark.parametrize(("N", "D"), [(197, 64), (257, 80), (785, 64)])
def test_lengths_of_real_models(N, D):
    assert relative_error(make_qkv(1, N, 1, D), [3.5], projections=(1,)) < 1e-6


@TILED_AND_RESIDENT
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("D", [64, 80])
def test_float16_is_as_exact_as_plain_torch(choose, resident, iterations, D):
    choose(resident)
    qkv, c = make_qkv(1, 65, 2, D, torch.float16), torch.tensor([4.0], device=DEVICE)
    options = {"iterations": iterations, "projections": (0, 1, 2), "normalize": True}
    truth = reference(qkv.double(), c.double(), **options)
    plain = reference(qkv, c, **options)
    assert relative_error(qkv, [4.0], iterations) <= 2 * ((plain.double() - truth).norm() / truth.norm()).item()


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
    assert reason in (why_not(qkv) or "")
    with pytest.raises(ValueError, match=reason):
        triton_attention(qkv, torch.ones(1), iterations=1, projections=(0,), normalize=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["fp16", "fp32"])
def test_gpu_check_tells_right_from_wrong(monkeypatch, dtype):
    monkeypatch.setitem(gpu_check.TOWERS, "small", (1, 40, 1, 32))
    assert gpu_check.check("small", dtype, 1, DEVICE).right
    monkeypatch.setattr(gpu_check, "triton_attention", lambda *a, **k: 1.01 * triton_attention(*a, **k))
    case = gpu_check.check("small", dtype, 1, DEVICE)
    assert not case.right
    assert case.triton_ms is None
    assert "WRONG" in gpu_check.line(case)
