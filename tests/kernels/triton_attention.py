"""Projections for the Triton kernels, their error, and what their cases run in."""

import pytest
import torch
from gem_fast.kernels.attention.reference import reference
from gem_fast.kernels.attention.triton import call, tile_choice, triton_attention
from gem_fast.kernels.triton_kernel import OPTIONS
from triton.runtime.interpreter import GridExecutor

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


def assert_as_exact_as_plain_torch(qkv, c, iterations, normalize=True):
    """An error of at most twice that of the plain equations in the same type."""
    temperature = torch.tensor([c], device=DEVICE)
    options = {"iterations": iterations, "projections": (0, 1, 2), "normalize": normalize}
    truth = reference(qkv.double(), temperature.double(), **options)
    plain = reference(qkv, temperature, **options)
    assert relative_error(qkv, [c], **options) <= 2 * ((plain.double() - truth).norm() / truth.norm()).item()


def poison_memory(monkeypatch):
    """What `torch.empty` returns is full of NaN, so an element that is never written shows."""
    empty, new_empty, empty_like = torch.empty, torch.Tensor.new_empty, torch.empty_like
    monkeypatch.setattr(call.torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
    monkeypatch.setattr(call.torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(torch.nan))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: new_empty(*a, **k).fill_(torch.nan))


def refuse_unknown_arguments(monkeypatch):
    """The interpreter drops arguments that a kernel does not have; the compiler refuses them."""
    launch = GridExecutor.__call__

    def launch_known(kernel, *args, **options):
        unknown = set(options) - set(kernel.arg_names) - {"grid", "warmup", "num_warps", "num_stages", *OPTIONS}
        assert not unknown, f"{kernel.fn.__name__} has no arguments {unknown}"
        return launch(kernel, *args, **options)

    monkeypatch.setattr(GridExecutor, "__call__", launch_known)


def force(monkeypatch, resident):
    """Force the tiled kernels, or the resident one where there is a tile for it."""

    def tiles_of(device, heads, N, width, dtype):
        tile = tile_choice.chosen_tile(device, "resident", heads, N, width, dtype)
        found = tile_choice.tiles_of(device, heads, N, width, dtype)
        return tile_choice.ChosenTiles({**found, "resident": tile if resident and N <= 64 else None})

    monkeypatch.setattr(call, "tiles_of", tiles_of)


def force_tile(monkeypatch, tile, resident=False):
    """Force one tile for all kernels, and the resident one or the others."""
    tiles = tile_choice.ChosenTiles(dict.fromkeys(tile_choice.OPERATIONS, tile))
    if not resident:
        tiles["resident"] = None
    monkeypatch.setattr(call, "tiles_of", lambda *_: tiles)
