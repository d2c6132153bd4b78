"""Launches of code that was bound before, through Triton's own binder, on a GPU that is not there."""

import os
from unittest.mock import patch

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("kernels that are interpreted have no binder", allow_module_level=True)

import triton.language as tl  # noqa: E402 - without Triton it can't be imported
from gem_fast.kernels import decode_heatmaps, decode_labels, triton_kernel  # noqa: E402
from gem_fast.kernels.activation import quick_gelu  # noqa: E402
from gem_fast.kernels.attention import pair_attention, pairs, self_self_attention  # noqa: E402
from gem_fast.kernels.decoding import triton_labels  # noqa: E402
from gem_fast.kernels.layer_norm import add_layer_norm  # noqa: E402
from gem_fast.kernels.triton_kernel import Launch, TritonKernel, remembered  # noqa: E402
from gem_fast.kernels.unit_rows import unit_rows  # noqa: E402
from triton.compiler import CompiledKernel  # noqa: E402
from triton.runtime import JITFunction  # noqa: E402

from tools import host_time  # noqa: E402

GRID = (1, 1, 1)


@triton.jit
def any_kernel(x, y, stride, n, eps, FIRST: tl.constexpr, LAST: tl.constexpr):
    """Arguments of each kind."""


KERNEL = TritonKernel("", "")
KERNEL.function = any_kernel


class Followed:
    """What is launched meanwhile: the code of each launch, its grid and what it is given, and how many were bound."""

    def __init__(self):
        self.codes, self.given, self.bound = [], [], 0

    def __enter__(self):
        run, code = JITFunction.run, CompiledKernel.__getitem__

        def followed_run(function, *arguments, grid, warmup, **options):
            self.bound += 1
            self._keep(run(function, *arguments, grid=grid, warmup=warmup, **options), grid, arguments, options)
            return self.codes[-1]

        def followed_code(compiled, grid):
            return lambda *arguments: self._keep(compiled, grid, arguments) or code(compiled, grid)(*arguments)

        self._patches = (
            patch.object(JITFunction, "run", followed_run),
            patch.object(CompiledKernel, "__getitem__", followed_code),
        )
        for each in self._patches:
            each.start()
        return self

    def __exit__(self, *_):
        for each in self._patches:
            each.stop()

    def _keep(self, code, grid, arguments, options=()):
        self.codes.append(code)
        names = code.src.fn.arg_names
        values = dict(zip(names, arguments, strict=False)) | {k: v for k, v in dict(options).items() if k in names}
        assert list(values) == names or options
        self.given.append((grid, {name: "" if torch.is_tensor(value) else value for name, value in values.items()}))

    def told(self):
        """Of each launch the code, of which Triton keeps one for each specialization, and what it was given."""
        return [(id(code), *given) for code, given in zip(self.codes, self.given, strict=True)]


@pytest.fixture(autouse=True)
def no_gpu():
    with host_time.no_gpu(), torch.inference_mode():
        yield


def test_aligned_memory_is_bound_once():
    x, y = torch.zeros(64), torch.zeros(64)
    launch = Launch(KERNEL, GRID, 3, 5, 1e-5, FIRST=1, LAST=True)
    with Followed() as followed:
        for tensors in ((x, y), (y, x), (x.clone(), y[16:])):
            launch(*tensors)
    assert followed.bound == 1
    assert len(set(map(id, followed.codes))) == 1


@pytest.mark.parametrize("order", [1, -1], ids=["aligned first", "aligned last"])
def test_of_any_memory_the_binders_own_choice_is_launched(order):
    """With products and sums fused, whatever Triton's default is."""
    x = torch.zeros(64)
    launch = Launch(KERNEL, GRID, 3, 5, 1e-5, FIRST=1, LAST=True)
    for tensors in [(x, x), (x[1:], x), (x, x[3:]), (x[4:], x), (x[8:], x[12:])][::order] * 2:
        with Followed() as followed:
            launch(*tensors)
        assert followed.codes[-1] is any_kernel[GRID](*tensors, 3, 5, 1e-5, FIRST=1, LAST=True, enable_fp_fusion=True)


def test_arguments_are_given_in_the_kernels_order():
    x = torch.zeros(64)
    launch = Launch(KERNEL, (2, 3, 4), 3, LAST=7, FIRST=8, eps=0.5, n=9, num_warps=2)
    with Followed() as followed:
        for _ in range(2):
            launch(x, None)
    values = {"x": "", "y": None, "stride": 3, "n": 9, "eps": 0.5, "FIRST": 8, "LAST": 7}
    assert (followed.bound, followed.given) == (1, [((2, 3, 4), values)] * 2)
    assert list(followed.given[1][1]) == list(values)


def test_nothing_is_made_twice_of_the_same():
    made = []

    @remembered
    def make(device, dtype, n):
        made.append(Launch(KERNEL, GRID, 3, n, 1e-5, FIRST=1, LAST=True))
        return made[-1]

    cuda = torch.device("cuda", 0)
    for device, dtype, n in [
        (cuda, torch.half, 3),
        (torch.device("cuda", 1), torch.half, 3),
        (cuda, torch.float, 3),
    ] * 2:
        make(device, dtype, n)
    assert len(made) == 3


def of_type(dtype, *shape):
    return torch.zeros(shape, dtype=dtype)


def layer_norms(dtype, C, N):
    x, more, front = of_type(dtype, 2, N, C), of_type(dtype, 2, N, C), of_type(dtype, 1, C)
    for kind in (dtype, torch.float32):
        norm = of_type(kind, C), of_type(kind, C)
        for eps in (1e-5, 1e-6):
            yield add_layer_norm, (x, None, *norm, eps, 64)
            yield add_layer_norm, (x, more, *norm, eps)
            yield add_layer_norm, (x, more, *norm, eps, 32, (x, more))
            yield add_layer_norm, (x[:, 1:], more, *norm, eps, None, None, front)
            yield add_layer_norm, (x.transpose(0, 1), None, *norm, eps, 64)
            yield add_layer_norm, (x, more[0], *norm, eps)


def attentions(dtype, N, H, D):
    qkv, wide = of_type(dtype, 2, N, 3, H, D), of_type(dtype, 2, N, 3, H, D + 16)
    for given in (qkv, wide[..., :D], qkv.transpose(0, 1) if N == 2 else qkv[:1]):
        B = len(given)
        for c in (torch.ones(B), torch.ones(B, given.shape[1])):
            for iterations in (0, 1, 2):
                for projections in ("qkv", "qv", "k"):
                    for normalize in (True, False):
                        options = {"iterations": iterations, "projections": projections, "normalize": normalize}
                        yield self_self_attention, (given, c), options
    side = int((N - 1) ** 0.5)
    for attended in ("qq+kk", "vv", "kk"):
        for average in (True, False):
            for sigma in (None, 5.0):
                yield pair_attention, (qkv, 0.125, attended), {"average": average, "sigma": sigma, "grid": (side, side)}


def others(dtype):
    for n in (784, 785):
        yield quick_gelu, (of_type(dtype, 1, n, 48),)
        yield unit_rows, (of_type(dtype, 1, n, 48),)
    for P, size, threshold in [(3, (32, 48), 0.0), (4, (32, 48), 0.5), (5, (33, 48), 0.5), (5, (33, 48), 1)]:
        yield decode_labels, (of_type(dtype, P, 7, 9), size), {"threshold": threshold}
        yield decode_heatmaps, (of_type(dtype, P, 7, 9), size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_launcher_takes_the_code_that_the_binder_would(dtype, monkeypatch):
    """Calls that differ in what code depends on, all of them bound, then all after one another."""
    calls = [*layer_norms(dtype, 384, 9), *layer_norms(dtype, 400, 16), *others(dtype)]
    for N, H, D in ((50, 2, 64), (145, 3, 64), (197, 2, 80), (17, 1, 88)):
        calls += attentions(dtype, N, H, D)
    monkeypatch.setattr(pairs, "distance_factors", lambda grid, *_: [torch.zeros(n, 1 + grid[0] ** 2) for n in grid])
    monkeypatch.setattr(torch, "full", lambda shape, _, **options: torch.empty(*shape, **options))
    monkeypatch.setattr(triton_labels, "in_groups", lambda scores, _: torch.zeros(7, 9, -(-len(scores) // 4) * 4))
    launched = []
    for always_bound in (True, False, False):
        monkeypatch.setattr(triton_kernel, "_HIP", always_bound)
        with Followed() as followed:
            for call, arguments, *options in calls:
                call(*arguments, **(options[0] if options else {}), backend="triton")
        launched.append(followed)
    bound, new, again = launched
    assert len({id(code) for code in bound.codes}) > 30
    assert bound.bound == len(bound.codes) > new.bound > again.bound
    assert new.told() == bound.told()
    assert again.told() == bound.told()
