"""`gem-fast info`."""

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from rich.markup import escape
from rich.table import Table

from .terminal import console

PACKAGES = (
    "gem_fast", "torch", "triton", "open_clip_torch", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy", "pillow",
)  # fmt: skip


def info() -> None:
    """Show the machine, the attention backends, what decodes scores, and the versions."""
    table = Table(show_header=False, box=None)
    table.add_row("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    if find_spec("torch"):
        add_engine(table)
    else:
        table.add_row("engine", escape('not installed: pip install "gem_fast[engine]"'))
    if find_spec("onnxruntime"):
        import onnxruntime

        table.add_row("runtime", ", ".join(onnxruntime.get_available_providers()))
    else:
        table.add_row("runtime", escape('not installed: pip install "gem_fast[runtime]"'))
    for package in PACKAGES:
        try:
            table.add_row(package, version(package))
        except PackageNotFoundError:
            table.add_row(package, "not installed")
    console.print(table)


def add_engine(table: Table) -> None:
    """What torch sees, the attention backends, and what decodes scores."""
    import torch

    from gem_fast.kernels.attention import backends, choose_backend, cpu
    from gem_fast.kernels.cpu_library import why_missing
    from gem_fast.kernels.decoding import cpu as decoding

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
