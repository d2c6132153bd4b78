"""Host time of calls to Triton's kernels, on a GPU that is not there: `python -m tools.host_time`.

The entries, their choice of a backend, the launchers, and Triton's own way to a launch are the real ones. The driver's
call at its end is left out, and tensors without memory stand for those of CUDA's allocator.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from timeit import Timer
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton
from gem_fast.bench.tables import markdown_table
from gem_fast.kernels import first_use, triton_host, triton_kernel
from gem_fast.kernels.activation import quick_gelu
from gem_fast.kernels.attention import pair_attention, self_self_attention
from gem_fast.kernels.attention.triton import tiles
from gem_fast.kernels.backends import OPERATIONS
from gem_fast.kernels.layer_norm import add_layer_norm
from gem_fast.kernels.unit_rows import unit_rows
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver as nvidia
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction

HOPPER = SimpleNamespace(major=9, minor=0, multi_processor_count=132, name="a GPU that is not there")
DTYPE = torch.bfloat16
# What a compiled kernel's launcher reads of it.
COMPILED = SimpleNamespace(
    num_ctas=1, cluster_dims=(1, 1, 1), global_scratch_size=0, global_scratch_align=1, profile_scratch_size=0,
    profile_scratch_align=1, launch_cooperative_grid=False, launch_pdl=False,
)  # fmt: skip


class NotCompiled(CompiledKernel):
    """A kernel as it is after its first launch, but for its code."""

    def __init__(self, source: Any, **_: Any) -> None:
        self.src, self.name, self.module, self.function, self.packed_metadata = source, source.name, 0, 0, b""
        self._run = vars(self)["run"] = nvidia.CudaLauncher(source, COMPILED)  # the second one before Triton 3.7

    def __del__(self) -> None:
        pass


@triton.jit
def nothing(x):  # type: ignore[no-untyped-def]
    """The least that a launch takes."""


def _launch(*arguments: Any) -> None:
    """What the driver's launch calls of Python."""
    metadata, before, after = arguments[8:11]
    before(metadata)
    after(metadata)


class Driver(nvidia.CudaDriver):
    """Triton's driver up to the call of the GPU's."""

    def __init__(self) -> None:
        self.utils = SimpleNamespace(launch=_launch, build_signature_metadata=lambda types: b"")
        self.launcher_cls = nvidia.CudaLauncher
        self.get_current_device = torch.cuda.current_device
        self.get_current_stream = lambda device: 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


@contextmanager
def no_gpu() -> Iterator[None]:
    """Torch and Triton as they are where there is an H100, but for what reaches it."""
    launched: list[JITFunction] = []

    def not_compiled(source: Any, **options: Any) -> CompiledKernel:
        launched.append(source.fn)
        return NotCompiled(source, **options)

    empty = torch.empty
    driver = Driver()
    known = {(name, DTYPE, 0): "" for name in OPERATIONS}
    with ExitStack() as stack:
        for where, name, stand_in in (
            (torch.cuda, "is_initialized", lambda: True),
            (torch.cuda, "get_device_properties", lambda device: HOPPER),
            (torch.cuda, "_exchange_device", lambda index: 0),
            (torch.cuda, "_maybe_exchange_device", lambda index: 0),
            (torch._C, "_cuda_getDevice", lambda: 0),
            (Tensor, "device", torch.device("cuda", 0)),  # as all tensors say then
            (Tensor, "is_cuda", True),
            (torch, "empty_like", lambda like: torch.empty(like.shape, dtype=like.dtype, device=like.device)),
            (torch, "empty", lambda *shape, dtype, device: empty(*shape, dtype=dtype, device="meta")),
            (triton_host, "why_no_launch", lambda: None),
            (triton.compiler, "compile", not_compiled),
            (nvidia, "PyKernelArg", SimpleNamespace),
            # Before Triton 3.7 each kernel has a launcher in C of its own, of which nothing is left here.
            (nvidia, "compile_module_from_src", lambda *_, **__: SimpleNamespace(launch=lambda *_: None)),
            (nvidia, "library_dirs", lambda: ()),
        ):
            stack.enter_context(patch.object(where, name, stand_in, create=where in (Tensor, torch._C, nvidia)))
        stack.enter_context(patch.dict(first_use._found, known))
        # Before Triton 3.5 it is `active`.
        stack.enter_context(patch.dict(vars(triton.runtime.driver), active=driver, _active=driver))
        stack.callback(triton_kernel.forget)
        try:
            yield
        finally:
            for kernel in launched:
                kernel.device_caches.clear()
            triton_host._asked.cache_clear()
            tiles._device.cache_clear()


def on_gpu(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=DTYPE)


def calls() -> dict[str, Callable[[], Any]]:
    """The calls of a forward of ViT-B/16 on an image of 448², by name."""
    x, other, qkv = on_gpu(1, 785, 768), on_gpu(1, 785, 768), on_gpu(1, 785, 3, 12, 64)
    few, inner = on_gpu(1, 50, 3, 12, 64), on_gpu(1, 785, 3072)
    norm = on_gpu(768), on_gpu(768), 1e-5
    scale, of_tokens = (torch.ones(shape) for shape in ((1,), (1, 785)))
    return {
        "LayerNorm and norms of tokens": partial(add_layer_norm, x, None, *norm, 64),
        "sum and LayerNorm": partial(add_layer_norm, x, other, *norm),
        "two sums, LayerNorm, norms": partial(add_layer_norm, x, other, *norm, 64, (x, other)),
        "self-self attention, 785 tokens": partial(self_self_attention, qkv, of_tokens),
        "self-self attention, no iteration": partial(self_self_attention, qkv, scale, iterations=0),
        "self-self attention, 50 tokens": partial(self_self_attention, few, scale),
        "pairs of projections": partial(pair_attention, qkv, scale, "qq+kk"),
        "QuickGELU": partial(quick_gelu, inner),
        "unit rows": partial(unit_rows, x),
        "an empty kernel": partial(nothing[(1,)], x),
    }


@dataclass(frozen=True)
class HostTime:
    """Of a call, in µs: in all, what is Triton's from the call of a kernel, or of its code, on, and memory's."""

    launches: int
    total: float
    triton: float
    memory: float

    def row(self, name: str) -> list[str]:
        rest = self.total - self.triton - self.memory
        return [name, str(self.launches), *(f"{each:.1f}" for each in (self.total, self.triton, self.memory, rest))]


def host_time(call: Callable[[], Any], loops: int = 500, rounds: int = 15) -> HostTime:
    """Medians; the parts are taken out of a call and timed by themselves."""
    call()  # compiles
    launches: list[Callable[[], Any]] = []
    tensors, run, code, empty = [], JITFunction.run, CompiledKernel.__getitem__, torch.empty

    def followed_run(kernel: JITFunction, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        launches.append(lambda: kernel[grid](*arguments, **options))
        return run(kernel, *arguments, grid=grid, warmup=warmup, **options)

    def followed_code(compiled: CompiledKernel, grid: Any) -> Any:
        def runner(*arguments: Any) -> None:
            launches.append(lambda: compiled[grid](*arguments))
            code(compiled, grid)(*arguments)

        return runner

    def followed_empty(*arguments: Any, **options: Any) -> Tensor:
        tensors.append((arguments, options))
        return empty(*arguments, **options)

    with (
        patch.object(JITFunction, "run", followed_run),
        patch.object(CompiledKernel, "__getitem__", followed_code),
        patch.object(torch, "empty", followed_empty),
    ):
        call()

    def launch_all() -> None:
        for launched in launches:
            launched()

    def allocate_all() -> None:
        for arguments, options in tensors:
            torch.empty(*arguments, **options)

    times = [
        [Timer(each).timeit(loops) / loops * 1e6 for each in (call, launch_all, allocate_all)] for _ in range(rounds)
    ]
    return HostTime(len(launches), *(median(each) for each in zip(*times, strict=True)))


def main() -> None:
    """Print a table."""
    with no_gpu(), torch.inference_mode():
        rows = [host_time(call).row(name) for name, call in calls().items()]
    heads = ["call", "launches", "µs", "Triton", "memory", "the rest"]
    sys.stdout.write("\n".join(markdown_table(heads, rows)) + "\n")


if __name__ == "__main__":
    main()
