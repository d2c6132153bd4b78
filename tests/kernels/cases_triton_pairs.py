"""The Triton kernel for pairs of projections against float64, on the GPU or in the interpreter.

`test_triton.py` runs this file.
"""

import pytest
import torch
from gem_fast.kernels import pair_attention
from gem_fast.kernels.attention.triton.tiles import Tile

from tests.kernels.test_pairs import error, exact
from tests.kernels.triton_attention import DEVICE, force_tile, make_qkv

pytestmark = pytest.mark.usefixtures("surroundings")


def run(qkv, pairs, scale, near=None, average=False, backend="triton"):
    sigma = 5.0 if near else None
    return pair_attention(qkv, scale, pairs, average=average, grid=near, sigma=sigma, backend=backend)


def holds(qkv, pairs, scale=0.125, near=None, average=False):
    """An error of at most twice plain torch's, in its type; or that of float32 where plain torch makes none."""
    truth = exact(qkv.cpu(), pairs, scale, near, average)
    result, plain = (run(qkv, pairs, scale, near, average, way) for way in ("triton", "sdpa"))
    assert result.dtype == qkv.dtype
    assert error(result.cpu(), truth) <= max(2 * error(plain.cpu(), truth), 3e-7)


@pytest.mark.parametrize(
    ("pairs", "average", "near"),
    [
        ("qq", False, (4, 7)),
        ("kk", True, None),
        ("vv", False, None),
        ("qk", True, (4, 7)),
        ("kq", False, (4, 7)),
        ("qq+kk", True, (4, 7)),
        ("vv+qk+kq", False, None),
        ("qq+qk+qv+kq+kk+kv+vq+vk+vv", False, (4, 7)),
        ("qq+qk+qv+kq+kk+kv+vq+vk+vv", True, None),
    ],
)
def test_every_pair(pairs, average, near):
    holds(make_qkv(2, 29, 2, 16), pairs, 0.5, near, average)


@pytest.mark.parametrize("D", [8, 64, 72, 80, 88, 96, 104, 128])
def test_widths(D):
    holds(make_qkv(1, 36, 1, D), "qq+kk", D**-0.5, (5, 7))


@pytest.mark.parametrize("near", [(1, 1), (1, 62), (63, 1), (8, 8), (7, 13)], ids=str)
def test_every_edge_of_a_tile_and_grid(near):
    qkv = make_qkv(1, 1 + near[0] * near[1], 1, 16)
    holds(qkv, "kk", 0.25, near)
    holds(qkv, "qk", 0.25)


@pytest.mark.skipif(DEVICE == "cuda", reason="no GPU has room for the tile")
def test_a_real_length(monkeypatch):
    force_tile(monkeypatch, Tile(256, 256, 4, 1))
    holds(make_qkv(1, 577, 1, 64), "kk", 0.125, (24, 24))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("near", [None, (5, 8)], ids=["plain", "near"])
def test_rows_of_zero_tiny_and_huge_norm(dtype, near):
    qkv = make_qkv(1, 41, 2, 32)
    qkv[:, 7, :2] = 0
    qkv[:, 20, :2] *= 1e-4
    qkv[:, 30, :2] *= 100
    holds(qkv.to(dtype), "qq+kk", 0.125, near)
    qkv[:, :, :2] = 0
    holds(qkv.to(dtype), "qq", 0.125, near)


def test_a_scale_for_each_image_and_strided_input():
    wide = make_qkv(2, 58, 3, 48).transpose(1, 3).contiguous().transpose(1, 3)
    qkv, scale = wide[:, ::2, :, 1:, 8:40], torch.tensor([1e-4, 3.0], device=DEVICE)
    result = run(qkv, "kk", scale, (4, 7))
    for image in range(2):
        truth = exact(qkv[image : image + 1].cpu(), "kk", scale[image].item(), (4, 7))
        assert error(result[image : image + 1].cpu(), truth) < 1e-6


@pytest.mark.parametrize("pairs", ["qq", "kk", "qq+vv"])
def test_unwanted_projections_are_never_read(pairs):
    qkv = make_qkv(1, 20, 1, 16)
    for unwanted in {"q", "k"} - set(pairs):
        qkv[:, :, "qk".index(unwanted)] = torch.nan
    assert torch.isfinite(run(qkv, pairs, 0.25)).all()


def test_opcheck_and_compile():
    qkv, c = make_qkv(2, 29, 2, 16), torch.tensor([0.25, 0.5], device=DEVICE)
    tables = [torch.rand(4, 29, device=DEVICE), torch.rand(7, 29, device=DEVICE)]
    for down, across in ((None, None), tables):
        operation = torch.ops.gem_fast.pair_attention_triton.default
        torch.library.opcheck(operation, (qkv, c, [0, 0, 1, 1], True, down, across))
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(qkv, "kk", c, (4, 7)), run(qkv, "kk", c, (4, 7)))
