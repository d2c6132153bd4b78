"""`gem-fast info`."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from rich.markup import escape
from rich.table import Table

from ..terminal import console

PACKAGES = (
    "gem_fast", "torch", "triton", "open_clip_torch", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy", "pillow",
)  # fmt: skip


def info() -> None:
    """Show the machine, which backends would run on its devices, and the versions."""
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
    """What torch sees, and which backends would run on its devices."""
    import torch

    from gem_fast.kernels.attention import backends
    from gem_fast.kernels.cpu_library import why_missing

    table.add_row("CPU", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for i in range(torch.cuda.device_count()):
        table.add_row(f"cuda:{i}", torch.cuda.get_device_name(i))
    table.add_row("MPS", "available" if torch.backends.mps.is_available() else "not available")
    table.add_row("backends", ", ".join(backends()))
    for device in ("cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))):
        for line in who_serves(device):
            table.add_row("", line)
    if missing := why_missing():
        table.add_row("", f"cpu can't serve: {missing}")
    table.add_row("tiles", "\n".join(tiles_in_use()))


def who_serves(device: str) -> Iterator[str]:
    """What attends and what decodes on a device, if no backend is asked for but by the environment."""
    import torch

    from gem_fast.kernels.attention import cpu, find_backend, why_not
    from gem_fast.kernels.decoding import cpu as native
    from gem_fast.kernels.decoding import find_decoder

    place = "the CPU" if device == "cpu" else device
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        qkv = torch.empty(1, 785, 3, 12, 64, dtype=dtype, device=device)
        try:
            chosen = find_backend(None, qkv, 1, (0, 1, 2), True).name
        except ValueError as error:
            chosen = f"none, {error}"
        path = f" ({cpu.path_for(dtype)})" if chosen == "cpu" else ""
        yield f"attention, {str(dtype).removeprefix('torch.')} on {place}: {chosen}{path}"
    if device != "cpu" and (reason := why_not("triton", qkv)):
        yield f"triton can't serve {place}: {reason}"
    try:
        decoder = find_decoder(torch.empty(2, 1, 1, device=device))
        yield f"decoding on {place}: {decoder}{f' ({native.path_for()})' if decoder == 'native' else ''}"
    except ValueError as error:
        yield f"decoding on {place}: none, {error}"


def tiles_in_use() -> list[str]:
    """Which table of tiles Triton's attention kernels get on each GPU, in a line."""
    import torch

    from gem_fast.kernels.attention.triton import launch, tuned

    if torch.cuda.device_count() and find_spec("triton"):
        gpus = [launch.device_of(torch.device("cuda", i)).name for i in range(torch.cuda.device_count())]
        return [f"cuda:{i}: {tuned.describe(name)}" for i, name in enumerate(gpus)]
    return [f"no GPU for Triton; {tuned.VARIABLE} is {os.environ.get(tuned.VARIABLE, 'not set')}"]
