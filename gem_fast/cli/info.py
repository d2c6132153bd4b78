"""`gem-fast info`."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from rich.table import Table

from .terminal import console


def info() -> None:
    """Show the machine, the attention backends, what decodes scores, and the versions."""
    import torch

    from gem_fast.kernels.attention import backends, choose_backend, cpu
    from gem_fast.kernels.cpu_library import why_missing
    from gem_fast.kernels.decoding import cpu as decoding

    table = Table(show_header=False, box=None)
    table.add_row("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    table.add_row("CPU", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for i in range(torch.cuda.device_count()):
        table.add_row(f"cuda:{i}", torch.cuda.get_device_name(i))
    table.add_row("MPS", "available" if torch.backends.mps.is_available() else "not available")
    table.add_row("backends", ", ".join(backends()))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        chosen = choose_backend(torch.empty(1, 1, 3, 1, 64, dtype=dtype))
        path = f" ({cpu.path_for(dtype)})" if chosen == "cpu" else ""
        table.add_row("", f"{str(dtype).removeprefix('torch.')} on the CPU: {chosen}{path}")
    missing = why_missing()
    table.add_row("decoding", f"scores on the CPU: {'torch' if missing else f'native ({decoding.path_for()})'}")
    if missing:
        table.add_row("", f"cpu can't serve: {missing}")
    table.add_row("tiles", "\n".join(tiles_in_use()))
    for package in ("gem_fast", "torch", "triton", "open_clip_torch", "numpy", "pillow"):
        try:
            table.add_row(package, version(package))
        except PackageNotFoundError:
            table.add_row(package, "not installed")
    console.print(table)


def tiles_in_use() -> list[str]:
    """Which table of tiles Triton's attention kernels get on each GPU, in a line."""
    import torch

    from gem_fast.kernels.attention.triton import launch, tuned

    if torch.cuda.device_count() and find_spec("triton"):
        gpus = [launch.device_of(torch.device("cuda", i)).name for i in range(torch.cuda.device_count())]
        return [f"cuda:{i}: {tuned.describe(name)}" for i, name in enumerate(gpus)]
    return [f"no GPU for Triton; {tuned.VARIABLE} is {os.environ.get(tuned.VARIABLE, 'not set')}"]
