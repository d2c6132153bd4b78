"""`gem-fast info`."""

import platform
from importlib.metadata import PackageNotFoundError, version

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
    for package in ("gem_fast", "torch", "triton", "open_clip_torch", "numpy", "pillow"):
        try:
            table.add_row(package, version(package))
        except PackageNotFoundError:
            table.add_row(package, "not installed")
    console.print(table)
