"""Launches of what was compiled before, through Triton's own binder, on a GPU that is not there."""

import os
from unittest.mock import patch

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("kernels that are interpreted have no binder", allow_module_level=True)

import triton.language as tl  # noqa: E402 - without Triton it can't be imported
from gem_fast.kernels import triton_kernel  # noqa: E402
from gem_fast.kernels.triton_kernel import TritonKernel  # noqa: E402
from triton.compiler import CompiledKernel  # noqa: E402
from triton.runtime import JITFunction  # noqa: E402

from tools import host_time  # noqa: E402

GRID = (1, 1, 1)


@triton.jit
def any_kernel(x, y, stride, n, eps, FIRST: tl.constexpr, LAST: tl.constexpr):
    """Arguments of each kind."""


class Launched:
    """Launches of a kernel: the code of each, and how many went through the binder."""

    def __init__(self):
        self.kernel, self.codes, self.bound = TritonKernel("", ""), [], 0
        self.kernel._kernel = any_kernel

    def __call__(self, tensors, *numbers, **constants):
        run, code = JITFunction.run, CompiledKernel.__getitem__

        def followed_run(*arguments, **options):
            self.bound += 1
            self.codes.append(run(*arguments, **options))
            return self.codes[-1]

        def followed_code(compiled, grid):
            self.codes.append(compiled)
            return code(compiled, grid)

        with patch.object(JITFunction, "run", followed_run), patch.object(CompiledKernel, "__getitem__", followed_code):
            self.kernel(GRID, tensors, *numbers, **constants)
        return self.codes[-1]


@pytest.fixture
def launched():
    with host_time.no_gpu():
        yield Launched()


def test_the_same_is_bound_once(launched):
    x, y = torch.zeros(64), torch.zeros(64)
    for tensors in ((x, y), (y, x), (x.clone(), y[16:])):
        launched(tensors, 3, 5, 1e-5, FIRST=1, LAST=True)
    assert launched.bound == 1
    assert len(set(map(id, launched.codes))) == 1


def test_what_is_launched_is_what_the_binder_would_choose(launched):
    """Of numbers, types, addresses and constants that code depends on, in two turns."""
    x = torch.zeros(64)
    tensors = [(x, x), (x, None), (x.half(), x), (x, x.double()), (x[1:], x), (x, x[3:]), (x[4:], x)]
    cases = [((x, x), stride, n, 1e-5, 1, True) for stride in (0, 1, 2, 16, 17, 32) for n in (1, 16, 2**31, 2**40)]
    cases += [(each, 3, 5, 1e-5, 1, True) for each in tensors]
    cases += [((x, x), 3, 5, eps, first, last) for eps in (1e-5, 1.0) for first in (0, 1, 16) for last in (True, False)]
    for given, stride, n, eps, first, last in cases * 2:
        found = launched(given, stride, n, eps, FIRST=first, LAST=last, num_warps=2)
        assert found is any_kernel[GRID](*given, stride, n, eps, FIRST=first, LAST=last, num_warps=2)
    known = len({str(case) for case in cases if not any(each is not None and each.data_ptr() % 16 for each in case[0])})
    assert len(launched.codes) == 2 * len(cases)
    assert launched.bound < 2 * len(cases) - known // 2


def test_options_of_the_compiler_are_told_apart(launched):
    x = torch.zeros(64)
    for warps in (2, 4, 2, 4):
        code = launched((x, x), 3, 5, 1e-5, FIRST=1, LAST=True, num_warps=warps)
        assert code is any_kernel[GRID](x, x, 3, 5, 1e-5, FIRST=1, LAST=True, num_warps=warps)
    assert launched.bound == 2


def test_constants_are_given_in_the_kernels_order(launched):
    """A launch takes all arguments by place."""
    given, code = [], CompiledKernel.__getitem__

    def followed(compiled, grid):
        return lambda *arguments: given.append(arguments) or code(compiled, grid)(*arguments)

    x = torch.zeros(64)
    with patch.object(CompiledKernel, "__getitem__", followed):
        for _ in range(2):
            launched.kernel(GRID, (x, x), 3, LAST=7, FIRST=8, eps=0.5, n=9)
    assert [arguments[2:] for arguments in given] == [(3, 9, 0.5, 8, 7)]


def test_memory_of_launches_is_bounded(launched, monkeypatch):
    monkeypatch.setattr(triton_kernel, "_MOST", 4)
    x = torch.zeros(64)
    for n in range(2, 20):
        launched((x, x), 3, n, 1e-5, FIRST=1, LAST=True)
        assert len(triton_kernel._known) <= 4
