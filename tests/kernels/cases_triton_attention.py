"""The Triton kernels against the float64 reference, on the GPU or in Triton's interpreter.

`test_triton.py` runs this file; by hand: `TRITON_INTERPRET=1 pytest tests/kernels/cases_triton_attention.py`.
"""

import pytest
import torch
import torch.nn.functional as F
from gem_fast.kernels import self_self_attention
from gem_fast.kernels.attention.triton import triton_attention, why_not
from gem_fast.kernels.attention.triton.tiles import Tile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.triton_attention import (
    DEVICE,
    TILED_AND_RESIDENT,
    force_tile,
    make_qkv,
    relative_error,
)

pytestmark = pytest.mark.usefixtures("surroundings")


@TILED_AND_RESIDENT
@pytest.mark.parametrize(("N", "iterations"), [(1, 0), (1, 2), (2, 1), (33, 1), (63, 2), (65, 0), (65, 1)])
def test_awkward_lengths(choose, resident, N, iterations):
    choose(resident)
    assert relative_error(make_qkv(1, N, 2, 32), [3.5], iterations, (0, 2)) < 1e-6


@pytest.mark.parametrize(
    ("resident", "N", "iterations", "normalize"),
    [(False, 1, 1, True), (True, 35, 1, True), (False, 35, 0, True), (False, 257, 1, True), (False, 5, 1, False)],
)
def test_temperatures_of_tokens_are_averaged(choose, resident, N, iterations, normalize):
    """A program takes the mean of 256 tokens at a time."""
    choose(resident)
    qkv = make_qkv(2, N, 1 if N > 256 else 2, 16)
    temperatures = torch.linspace(1, 6, 2 * N, device=DEVICE).view(2, N)
    options = {"iterations": iterations, "projections": "v" if N > 256 else "qv", "normalize": normalize}
    found = self_self_attention(qkv, temperatures, **options, backend="triton")
    expected = self_self_attention(qkv, temperatures.mean(-1), **options, backend="triton")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    truth = self_self_attention(qkv.double(), temperatures.double(), **options, backend="reference")
    assert (found - truth).norm() < 1e-5 * truth.norm()


WIDTHS = [8, 32, 64, 72, 80, 88, 96, 104, 112, 128]


@pytest.mark.parametrize(("resident", "D"), [(D in (8, 64, 80, 104, 128), D) for D in WIDTHS] + [(False, 80)])
def test_widths(choose, resident, D):
    choose(resident)
    assert relative_error(make_qkv(1, 37, 1, D), [3.5]) < 1e-6


@pytest.fixture
def large_tiles(monkeypatch):
    """Tiles that no GPU has room for, so that the interpreter has few to walk through."""
    if DEVICE == "cpu":
        force_tile(monkeypatch, Tile(256, 256, 4, 1))


@pytest.mark.parametrize(
    ("D", "iterations"), [(32, 2), (64, 0), (64, 1), (80, 0), (80, 2), (88, 1), (96, 2), (104, 0), (128, 1)]
)
def test_every_tower_at_224_pixels(large_tiles, D, iterations):
    assert relative_error(make_qkv(1, 257, 1, D), [3.5], iterations, (1, 2)) < 1e-6


@pytest.mark.parametrize(("N", "D", "iterations"), [(197, 64, 1), (785, 80, 0), (1025, 88, 1), (2049, 64, 0)])
def test_lengths_of_real_models(large_tiles, N, D, iterations):
    assert relative_error(make_qkv(1, N, 1, D), [3.5], iterations, (0, 2) if N < 1000 else (1,)) < 1e-6


def test_a_long_sequence_in_the_tiles_of_the_table():
    """7 tiles of rows, 13 of keys."""
    assert relative_error(make_qkv(1, 391, 1, 64), [3.5], projections=(1,)) < 1e-6


def test_a_long_sequence(monkeypatch):
    """Of 5,121 tokens a few, in float64; p¹ of all of them is torch's. `gpu_check` has 70,001 of them."""
    if DEVICE == "cpu":
        force_tile(monkeypatch, Tile(1024, 1024, 4, 1))
    qkv, c = make_qkv(1, 5121, 1, 16), torch.tensor([3.5], device=DEVICE)
    result = triton_attention(qkv, c, iterations=1, projections=(0,), normalize=True)
    query, value = F.normalize(qkv[0, :, 0, 0], dim=-1)[None, None], qkv[0, :, 2, 0].double()
    refined = F.scaled_dot_product_attention(query * c, query, query, scale=1.0)[0, 0].double()
    refined = F.normalize(refined, dim=-1)
    some = [0, 1, 1023, 1024, 3000, 5119, 5120]
    truth = torch.softmax(c.double() * refined[some] @ refined.T, dim=-1) @ value
    assert (result[0, some] - truth).norm() < 2e-6 * truth.norm()


@pytest.mark.parametrize(("N", "D"), [(197, 32), (257, 80)])
def test_rows_of_any_norm_of_real_models(large_tiles, N, D):
    qkv = make_qkv(1, N, 1, D)
    assert relative_error(qkv, [D**-0.5], 0, (2,), normalize=False) < 1e-6
    assert relative_error(qkv, [D**-0.5], 1, (0,), normalize=False) < 1e-5


@pytest.mark.skipif(DEVICE == "cuda", reason="not every GPU has room for it")
@pytest.mark.parametrize(("N", "D"), [(65, 32), (100, 64), (128, 32)])
def test_a_head_of_up_to_128_tokens_is_resident(monkeypatch, N, D):
    force_tile(monkeypatch, Tile(128, 128, 8, 1), resident=True)
    assert relative_error(make_qkv(1, N, 2, D), [3.5], 2, (0, 2)) < 1e-6


@pytest.mark.parametrize(("N", "iterations"), [(257, 1), (321, 0)])
def test_slices_zero_rows_and_temperatures_of_real_lengths(large_tiles, N, iterations):
    """Every second token and one head of a wider buffer, tokens of zero, a temperature for each image."""
    wide = make_qkv(2, 2 * N, 2, 48)
    wide[0, [0, 6, 2 * N - 2]] = 0
    assert relative_error(wide[:, ::2, :, 1:, 8:40], [0.5, 20.0], iterations, (0, 2)) < 1e-6


@pytest.mark.parametrize(
    ("resident", "projections"),
    [(False, (0,)), (True, (1,)), (True, (2,)), (False, (0, 1)), (False, (1, 2)), (True, (2, 0)), (False, (0, 1, 2))],
)
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


@pytest.mark.parametrize(("N", "iterations"), [(1, 0), (48, 0), (64, 2), (65, 2)])
def test_rows_of_any_norm(N, iterations):
    """`normalize=False`; CLIP Surgery's value-value attention is its case without iterations."""
    qkv = make_qkv(2, N, 1, 24)
    assert relative_error(qkv, [0.125, 1.0], 0, (2,), normalize=False) < 1e-6
    assert relative_error(qkv, [0.125, 1.0], iterations, (0, 1), normalize=False) < 1e-5


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
