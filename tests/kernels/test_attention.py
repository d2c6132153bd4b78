"""Self-self attention: the reference against the equations in scalars, the backends against the reference."""

import math

import pytest
import torch
from gem_fast.kernels import self_self_attention
from gem_fast.kernels.attention.self_self import OPERATION


def serving(normalize):
    """Names of the backends that this machine runs."""
    arguments = torch.zeros(1, 1, 3, 1, 64), torch.ones(1), 1, (0, 1, 2), normalize
    return [row.name for row in OPERATION.backends if row.why_not(*arguments) is None]


HERE = serving(normalize=True)
FAST = [name for name in HERE if name != "reference"]
UNNORMALIZED = [name for name in serving(normalize=False) if name != "reference"]
SUBSETS = ["q", "k", "v", "qk", "kv", "vq", "qkv"]


def make_qkv(B, N, H, D, seed=0, dtype=torch.float32):
    """Projections whose tokens have norms of 0.2 to 5, as real ones do."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(B, N, 3, H, D, generator=generator, dtype=torch.float64)
    norms = torch.empty(B, N, 3, H, 1, dtype=torch.float64).uniform_(0.2, 5, generator=generator)
    return (qkv / D**0.5 * norms).to(dtype)


def exact(qkv, c, **options):
    return self_self_attention(qkv.double(), c.double(), backend="reference", **options)


def error(result, truth):
    return ((result.double() - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize("iterations", [0, 2])
@pytest.mark.parametrize("normalize", [True, False])
def test_reference_is_the_equations_element_by_element(iterations, normalize):
    """Eq. 3 and 5-7 in Python floats, for one image and head."""
    N, D, c = 5, 3, 2.5
    qkv = make_qkv(1, N, 1, D, dtype=torch.float64)

    def unit(rows):
        return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows] if normalize else rows

    def assign(p, values):
        out = []
        for a in p:
            weights = [math.exp(c * sum(x * y for x, y in zip(a, b, strict=True))) for b in p]
            total = sum(weights)
            out.append([sum(wt * v[d] for wt, v in zip(weights, values, strict=True)) / total for d in range(D)])
        return out

    per_projection = []
    for index in range(3):
        p = unit(qkv[0, :, index, 0].tolist())
        for _ in range(iterations):
            p = unit(assign(p, p))
        per_projection.append(torch.tensor(assign(p, qkv[0, :, 2, 0].tolist()), dtype=torch.float64))
    expected = torch.stack(per_projection).mean(0)
    result = self_self_attention(
        qkv, torch.tensor([c]), iterations=iterations, normalize=normalize, backend="reference"
    )
    torch.testing.assert_close(result[0], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("projections", SUBSETS)
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_subsets_and_iterations(backend, projections, iterations):
    qkv, c = make_qkv(2, 65, 2, 32), torch.tensor([1.5, 4.0])
    options = {"iterations": iterations, "projections": projections}
    result = self_self_attention(qkv, c, backend=backend, **options)
    assert result.shape == (2, 65, 64)
    assert error(result, exact(qkv, c, **options)) < 1e-6


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("N", [1, 2, 63, 197, 257])
@pytest.mark.parametrize("D", [32, 64, 80, 88, 104, 112])
def test_awkward_sizes(backend, N, D):
    qkv, c = make_qkv(1, N, 3, D), torch.tensor([3.5])
    assert error(self_self_attention(qkv, c, backend=backend), exact(qkv, c)) < 1e-6


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_low_precision_error_is_at_most_twice_plain_torch(backend, dtype, iterations):
    qkv, c = make_qkv(2, 197, 3, 64, dtype=dtype), torch.tensor([2.0, 5.0])
    truth = exact(qkv, c, iterations=iterations)
    plain = self_self_attention(qkv, c, iterations=iterations, backend="reference")
    fast = self_self_attention(qkv, c, iterations=iterations, backend=backend)
    assert fast.dtype == dtype
    assert error(fast, truth) <= 2 * error(plain, truth)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("c", [1e-4, 1e4])
def test_extreme_temperatures(backend, c):
    qkv, temperature = make_qkv(1, 65, 2, 64), torch.tensor([c])
    result = self_self_attention(qkv, temperature, backend=backend)
    assert torch.isfinite(result).all()
    # At 1e4 a logit of float32 carries an error of 1e-3, which the exponential passes on.
    assert error(result, exact(qkv, temperature)) < (1e-6 if c < 1 else 5e-3)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
def test_zero_tokens_attend_uniformly(backend, dtype):
    """A token of norm zero has logits of zero, so its output is the mean of the values, not NaN."""
    if backend == "reference" and dtype == torch.float16:
        pytest.skip("plain float16 normalisation divides zero by zero: its epsilon underflows")
    qkv = make_qkv(1, 33, 1, 32, dtype=dtype)
    qkv[:, 7, :2] = 0
    result = self_self_attention(qkv, torch.tensor([3.0]), iterations=0, projections="qk", backend=backend)
    mean = qkv[:, :, 2].float().mean(1).flatten(1)
    torch.testing.assert_close(result[:, 7].float(), mean, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("backend", FAST)
def test_strided_and_sliced_input(backend):
    """Any strides: a transposed buffer, every second token, a slice of heads."""
    wide = make_qkv(2, 130, 5, 64).transpose(1, 3).contiguous().transpose(1, 3)
    sliced = wide[:, ::2, :, 1:4]
    c = torch.tensor([2.0, 3.0])
    result = self_self_attention(sliced, c, backend=backend)
    torch.testing.assert_close(result, self_self_attention(sliced.clone(), c, backend=backend), rtol=1e-5, atol=1e-6)
    assert error(result, exact(sliced, c)) < 1e-6


@pytest.mark.parametrize("backend", FAST)
def test_projections_that_are_not_asked_for_are_never_read(backend):
    qkv, c = make_qkv(1, 50, 2, 64), torch.tensor([3.0])
    expected = self_self_attention(qkv, c, projections="v", backend=backend)
    qkv[:, :, :2] = torch.nan
    torch.testing.assert_close(self_self_attention(qkv, c, projections="v", backend=backend), expected)


@pytest.mark.parametrize("backend", [None, *UNNORMALIZED])
def test_clip_surgery_value_value_attention(backend):
    qkv = make_qkv(2, 50, 2, 64)
    value = qkv[:, :, 2].transpose(1, 2).double()
    expected = torch.softmax(value @ value.transpose(-2, -1) / 8, dim=-1) @ value
    result = self_self_attention(
        qkv, torch.full((2,), 1 / 8), iterations=0, projections="v", normalize=False, backend=backend
    )
    assert error(result, expected.transpose(1, 2).flatten(2)) < 1e-6


def test_images_of_a_batch_do_not_mix():
    qkv, c = make_qkv(3, 40, 2, 32), torch.tensor([1.0, 3.0, 9.0])
    batch = self_self_attention(qkv, c)
    for i in range(3):
        torch.testing.assert_close(batch[i : i + 1], self_self_attention(qkv[i : i + 1], c[i : i + 1]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("number", [3.3, 2])
def test_a_number_is_the_temperature_of_all_images(number, dtype):
    qkv = make_qkv(3, 40, 2, 32, dtype=dtype)
    each = torch.full((3,), float(number), dtype=torch.promote_types(dtype, torch.float32))
    torch.testing.assert_close(self_self_attention(qkv, number), self_self_attention(qkv, each), rtol=0, atol=0)


def test_float64_is_exact_by_default():
    qkv, c = make_qkv(1, 20, 1, 32, dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)
    torch.testing.assert_close(self_self_attention(qkv, c), exact(qkv, c), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv": torch.zeros(1, 4, 2, 1, 8)}, r"\[B, N, 3, H, D\].*\[1, 4, 2, 1, 8\]"),
        ({"qkv": torch.zeros(1, 4, 3, 1, 8, dtype=torch.int32)}, "floating"),
        ({"inverse_temperature": torch.ones(2)}, r"inverse_temperature .*\[1\].*\[2\]"),
        ({"inverse_temperature": torch.ones(1, device="meta")}, "inverse_temperature must be on cpu.*meta"),
        ({"inverse_temperature": 0}, "inverse_temperature must be positive, got 0"),
        ({"inverse_temperature": -3.0}, "inverse_temperature must be positive, got -3"),
        ({"inverse_temperature": float("nan")}, "inverse_temperature must be positive, got nan"),
        ({"inverse_temperature": None}, "inverse_temperature must be positive, got None"),
        ({"inverse_temperature": "adaptive"}, "inverse_temperature must be positive, got adaptive"),
        ({"iterations": -1}, "iterations"),
        ({"projections": "qq"}, "projections.*'qq'"),
        ({"projections": ""}, "projections"),
        ({"projections": "x"}, "projections"),
        ({"backend": "magic"}, "'magic'.*reference, sdpa"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"qkv": torch.zeros(1, 4, 3, 1, 8), "inverse_temperature": torch.ones(1), **change}
    with pytest.raises(ValueError, match=message):
        self_self_attention(arguments.pop("qkv"), arguments.pop("inverse_temperature"), **arguments)


def test_backend_of_the_environment_is_asked_for(monkeypatch):
    qkv, c = make_qkv(1, 20, 1, 32), torch.tensor([3.0])
    monkeypatch.setenv("GEM_FAST_BACKEND", "reference")
    torch.testing.assert_close(
        self_self_attention(qkv, c), self_self_attention(qkv, c, backend="reference"), rtol=0, atol=0
    )
    monkeypatch.setenv("GEM_FAST_BACKEND", "magic")
    with pytest.raises(ValueError, match=r"'magic' in GEM_FAST_BACKEND.*reference, sdpa"):
        self_self_attention(qkv, c)


@pytest.mark.parametrize("backend", UNNORMALIZED)
@pytest.mark.parametrize("iterations", [1, 2])
def test_iterations_of_rows_of_any_norm(backend, iterations):
    qkv, c = make_qkv(2, 33, 2, 16), torch.tensor([0.3, 2.5])
    options = {"iterations": iterations, "normalize": False}
    assert error(self_self_attention(qkv, c, backend=backend, **options), exact(qkv, c, **options)) < 4e-6


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("size", [1e-10, 1e10])
def test_norms_are_no_matter(backend, size):
    qkv, c = make_qkv(1, 65, 2, 16), torch.tensor([4.0])
    sized = qkv.clone()
    sized[:, :, :2] *= size
    assert (
        error(self_self_attention(sized, c, projections="qk", backend=backend), exact(qkv, c, projections="qk")) < 1e-6
    )


@pytest.mark.parametrize("backend", HERE)
def test_an_images_temperature_is_the_mean_of_its_tokens(backend):
    qkv = make_qkv(2, 40, 2, 16)
    of_tokens = torch.rand(2, 40, generator=torch.Generator().manual_seed(0)) * 5
    found = self_self_attention(qkv, of_tokens, backend=backend)
    assert error(found, exact(qkv, of_tokens.double().mean(-1))) < 1e-6
