"""The machine's own ceiling, measured: a large matrix product for arithmetic, a copy for memory.

`python -m gem_fast.bench.ceiling` tells each product's rate on the CPU, torch's own and the engine's.
"""

import functools
import time
from collections.abc import Callable

import torch
from gem_fast.kernels import linear
from torch import Tensor

from .machine import machine_line

PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"torch.mm": torch.mm, "engine": linear}
_LARGEST = {"cpu": 2048, "cuda": 8192}
_CALLS = 9
_BUDGET = 2.0  # seconds of the calls of one function
_COPIED = {"cpu": 2**28, "cuda": 2**31}  # bytes, many times the last cache


def ceiling(dtype: str, device: str = "cpu") -> dict[str, float]:
    """Both rates: `flops` and `bytes` a second."""
    return {"flops": product_rate(dtype, device), "bytes": copy_rate(device)}


def product_rate(dtype: str, device: str = "cpu") -> float:
    """FLOP/s of a square matrix product in that type, in the fastest call of torch's own product or of the engine's.

    On x86-64 CPUs those are MKL's and oneDNN's; which is faster depends on the CPU.
    """
    return max(_rate_of(product, dtype, device) for product in PRODUCTS.values())


def _rate_of(product: Callable[[Tensor, Tensor], Tensor], dtype: str, device: str) -> float:
    """With matrices as large as a call of a second allows: few CPUs have all products in float16."""
    side = 512
    while True:
        a, b = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
        seconds = _least_seconds(functools.partial(product, a, b), device)
        if side == _LARGEST[torch.device(device).type] or 4**3 * seconds > 1:
            return 2 * side**3 / seconds
        side *= 4


def copy_rate(device: str = "cpu") -> float:
    """Bytes/s that are read and written in the fastest copy."""
    size = _COPIED[torch.device(device).type]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _least_seconds(lambda: target.copy_(source), device)


def _least_seconds(function: Callable[[], object], device: str) -> float:
    """Of several calls: whatever else runs on the machine can only hide its ceiling."""
    measured: list[float] = []
    while len(measured) < _CALLS and sum(measured) < _BUDGET:
        start = time.perf_counter()
        function()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        measured.append(time.perf_counter() - start)
    return min(measured)


if __name__ == "__main__":
    print(machine_line())
    for dtype in ("float32", "bfloat16"):
        rates = (f"{name} {_rate_of(product, dtype, 'cpu') / 1e9:.0f}" for name, product in PRODUCTS.items())
        print(f"{dtype}: GFLOP/s of {', '.join(rates)}")
