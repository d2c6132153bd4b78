"""Attention of pairs of projections, of rows of any norm, by each backend and instruction set against float64."""

import pytest
import torch
from gem_fast.kernels import pair_attention
from gem_fast.kernels.attention.cpu import pairs_cpu
from gem_fast.kernels.attention.distance import bias_rows, distance_factors
from gem_fast.kernels.attention.pairs import parse_pairs, reference
from gem_fast.kernels.cpu_library import paths

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WAYS = [*paths(), "sdpa", "reference"]
ROUNDING = 6e-8  # of a float32: where one weight is 1 and the others are 0, plain torch makes no error at all


def make_qkv(N, size=1.0, B=2, H=2, D=64, dtype=torch.float32):
    """Projections whose tokens have norms from a third to three times the usual, times `size`."""
    generator = torch.Generator().manual_seed(N)
    qkv = torch.randn(B, N, 3, H, D, generator=generator, dtype=torch.float64)
    qkv[:, :, :2] *= size * 3 ** torch.empty(B, N, 2, H, 1, dtype=torch.float64).uniform_(-1, 1, generator=generator)
    return qkv.to(dtype)


def run(way, qkv, pairs, scale=0.125, grid=None, average=False):
    c = torch.full(qkv.shape[:1], scale)
    if way in ("sdpa", "reference"):
        sigma = 5.0 if grid else None
        return pair_attention(qkv, c, pairs, average=average, grid=grid, sigma=sigma, backend=way)
    factors = distance_factors(grid, 5.0, c) if grid else None
    return pairs_cpu(qkv, c, parse_pairs(pairs), average, factors, path=way)


def exact(qkv, pairs, scale=0.125, grid=None, average=False):
    """Written with the distances of all pairs of patches."""
    heads = qkv.double().permute(2, 0, 3, 1, 4)
    bias = torch.zeros(qkv.shape[1], qkv.shape[1], dtype=torch.float64)
    if grid:
        places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).double()
        bias[1:, 1:] = torch.exp(-(torch.cdist(places, places) ** 2) / 50)
    total = 0
    for pair in pairs.split("+"):
        a, b = (heads["qkv".index(letter)] for letter in pair)
        total = total + torch.softmax(scale * a @ b.transpose(-2, -1) + bias, dim=-1) @ heads[2]
    return (total / len(pairs.split("+")) if average else total).transpose(1, 2).flatten(2)


def error(result, truth):
    return ((result.double() - truth).norm() / truth.norm()).item()


def types_of(way):
    return [torch.bfloat16] if way == "avx512_bf16" else [torch.float32, torch.float16, torch.bfloat16]


def holds(way, qkv, pairs, against="reference", **options):
    truth, plain = exact(qkv, pairs, **options), run(against, qkv, pairs, **options)
    assert error(run(way, qkv, pairs, **options), truth) <= max(2 * error(plain, truth), ROUNDING)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pairs", ["qq", "kk", "vv", "qk", "kq", "qq+kk", "qq+kk+vv", "qk+vv"])
@pytest.mark.parametrize("grid", [None, (7, 20)], ids=["plain", "near"])
def test_every_pair(way, pairs, grid):
    for dtype in types_of(way):
        for average in (False, True):
            holds(way, make_qkv(141, dtype=dtype), pairs, grid=grid, average=average)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "grid", [(1, 1), (2, 3), (5, 3), (1, 15), (5, 19), (8, 12), (6, 16), (13, 15), (20, 20)], ids=str
)
@pytest.mark.parametrize("near", [False, True])
def test_every_edge_of_a_block_and_grid(way, grid, near):
    for dtype in types_of(way)[:1]:
        qkv = make_qkv(1 + grid[0] * grid[1], dtype=dtype)
        for pairs in ("kk", "qk"):
            truth = exact(qkv, pairs, grid=grid if near else None)
            limit = 5e-3 if dtype == torch.bfloat16 else 1e-6
            assert error(run(way, qkv, pairs, grid=grid if near else None), truth) < limit


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("D", [8, 16, 24, 40, 64, 72, 80, 96, 88, 104, 128])
def test_every_width(way, D):
    for dtype in types_of(way)[:1]:
        holds(way, make_qkv(101, D=D, dtype=dtype), "qq+kk", grid=(10, 10))


@pytest.mark.parametrize("way", paths())
@pytest.mark.parametrize("size", [1e-3, 0.3, 1, 2, 3, 4, 6, 10, 30, 1000])
@pytest.mark.parametrize("grid", [None, (14, 14)], ids=["plain", "near"])
def test_norms_of_any_size(way, size, grid):
    """Those of a head span up to a factor of nine: the symmetric kernel's range ends on the way."""
    for dtype in types_of(way)[:1]:
        holds(way, make_qkv(197, size, dtype=dtype), "qq+kk", grid=grid)


@pytest.mark.parametrize("way", paths())
@pytest.mark.parametrize("pair", ["qq", "kk", "vv"])
@pytest.mark.parametrize("grid", [None, (9, 15)], ids=["plain", "near"])
def test_a_projection_with_itself_takes_the_symmetric_kernel(way, pair, grid):
    """Whose bits are others than those of a pair of two projections of the same values; beyond its range, the same."""
    dtype = types_of(way)[0]
    index, other = "qkv".index(pair[0]), "k" if pair == "qq" else "q"
    for size, symmetric in ((0.1, True), (1, True), (300, False)):
        qkv = make_qkv(136, size, dtype=dtype)
        qkv[:, :, 2] *= size if pair == "vv" else 1
        twin = qkv.clone()
        twin[:, :, "qkv".index(other)] = qkv[:, :, index]
        own, general = (run(way, each, letters, grid=grid) for each, letters in ((qkv, pair), (twin, pair[0] + other)))
        same = (own == general).unflatten(2, (2, 64)).all(dim=3).all(dim=1)  # of each image's head
        assert same.logical_not().all() if symmetric else same.all()
        truth = exact(qkv, pair, grid=grid)
        assert error(own, truth) <= max(2 * error(run("reference", qkv, pair, grid=grid), truth), ROUNDING)


@pytest.mark.parametrize("way", [*paths(), "sdpa"])
def test_rows_of_zero_tiny_and_huge_norm(way):
    """Against SDPA, whose logits do not overflow in float16."""
    for dtype in types_of(way):
        qkv = make_qkv(150, dtype=dtype)
        qkv[:, 7, :2] = 0
        qkv[:, 100, :2] *= 1e-4
        holds(way, qkv, "qq+kk", "sdpa")
        qkv[:, 50, :2] *= 20
        holds(way, qkv, "qq+kk", "sdpa")
        qkv[:, :, :2] = 0
        holds(way, qkv, "qq+kk", "sdpa")
        assert torch.isfinite(run(way, qkv, "qq")).all()


@pytest.mark.parametrize("way", paths())
@pytest.mark.parametrize(("pairs", "grid"), [("qq", None), ("kk", (12, 12)), ("qq+kk", None), ("qk", None)], ids=str)
@pytest.mark.parametrize("size", [1, 8])
def test_bits_depend_on_no_other_head_image_or_thread(threads, way, pairs, grid, size):
    """A head that the symmetric kernel can't serve leaves the others as they are."""
    qkv = make_qkv(145, size, B=3, H=1, dtype=types_of(way)[0])
    qkv[1, 3, :2] *= 40
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(run(way, qkv, pairs, grid=grid))
        alone = [run(way, image[None], pairs, grid=grid)[0] for image in qkv]
        assert torch.equal(torch.stack(alone), results[-1])
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("way", paths())
@pytest.mark.parametrize("pairs", ["qq", "qk"])
def test_nan_in_a_head_stays_in_that_head(way, pairs):
    qkv = make_qkv(50, dtype=types_of(way)[0])
    clean = run(way, qkv, pairs).view(2, 50, 2, 64)
    qkv[0, 0, :, 1] = torch.nan
    result = run(way, qkv, pairs).view(2, 50, 2, 64)
    assert result[0, :, 1].isnan().all()
    assert torch.equal(result[0, :, 0], clean[0, :, 0])
    assert torch.equal(result[1], clean[1])


@pytest.mark.parametrize("way", paths())
def test_memory_around_the_input_is_not_read_into_the_result(way):
    wide = torch.full((3, 60, 3, 4, 72), torch.nan, dtype=torch.bfloat16)
    inner = wide[1:2, 5:55, :, 1:3, 8:64]
    inner.copy_(make_qkv(50, B=1, D=56))
    assert torch.equal(run(way, inner, "qq+kk", grid=(7, 7)), run(way, inner.clone(), "qq+kk", grid=(7, 7)))


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (4, 2)], ids=str)
def test_the_bias_in_parts_is_the_bias(grid):
    N = 1 + grid[0] * grid[1]
    factors = distance_factors(grid, 5.0, torch.zeros((), dtype=torch.float64))
    whole = bias_rows(factors, 0, N)
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    for i, (y, x) in enumerate(places, 1):
        for j, (other, another) in enumerate(places, 1):
            distance = torch.tensor((y - other) ** 2 + (x - another) ** 2, dtype=torch.float64)
            assert whole[i, j] == pytest.approx(torch.exp(-distance / 50).item(), rel=1e-14)
    assert not whole[0].any()
    assert not whole[:, 0].any()
    parts = [bias_rows(factors, start, min(start + 2, N)) for start in range(0, N, 2)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("backend", [None, "sdpa"])
def test_compiles_without_a_graph_break(backend):
    qkv = make_qkv(36)
    options = {"grid": (5, 7), "sigma": 5.0, "backend": backend}
    compiled = torch.compile(pair_attention, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(qkv, 0.125, "kk", **options), pair_attention(qkv, 0.125, "kk", **options))


@pytest.mark.skipif(not paths(), reason="the native kernel is not here")
def test_opcheck():
    qkv, c = make_qkv(36), torch.full((2,), 0.125)
    tables = [torch.zeros(6, 96), torch.zeros(8, 96)]
    for down, across in ((None, None), tables):
        arguments = (qkv, c, [0, 0, 1, 1], True, down, across, paths()[-1])
        torch.library.opcheck(torch.ops.gem_fast.pair_attention_cpu.default, arguments)


def test_float64_and_gradients_are_torchs():
    qkv = make_qkv(16, dtype=torch.float64)
    c = torch.full((2,), 0.125, dtype=torch.float64)
    assert torch.equal(pair_attention(qkv, c, "qq"), reference(qkv, c, ((0, 0),), False, None))
    trained = make_qkv(16).requires_grad_()
    pair_attention(trained, 0.125, "qq").sum().backward()
    assert trained.grad is not None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"qkv": torch.zeros(1, 5, 2, 1, 8)}, r"\[B, N, 3, H, D\]"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": None}, "scale must be positive, got None"),
        ({"scale": torch.ones(3)}, r"shape \[B\] = \[1\]"),
        ({"pairs": "q"}, "joined by"),
        ({"pairs": ""}, "joined by"),
        ({"pairs": None}, "joined by"),
        ({"sigma": 5.0}, "grid must have 4 patches"),
        ({"sigma": 0.0, "grid": (2, 2)}, "sigma and its square must be positive, got 0.0"),
        ({"sigma": 1e-30, "grid": (2, 2)}, "sigma and its square must be positive, got 1e-30"),
        ({"sigma": float("nan"), "grid": (2, 2)}, "sigma and its square must be positive, got nan"),
        ({"sigma": 5.0, "grid": (-2, -2)}, r"got \(-2, -2\)"),
        ({"sigma": 5.0, "grid": (2, 3)}, r"got \(2, 3\)"),
        ({"backend": "triton"}, "qkv is on cpu, not on a CUDA or ROCm device"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(changed, reason):
    arguments = {"qkv": torch.zeros(1, 5, 3, 1, 8), "scale": 1.0, "pairs": "qq", **changed}
    with pytest.raises(ValueError, match=reason):
        pair_attention(**arguments)
