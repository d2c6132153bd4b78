"""`gem-fast info`."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from ..dtypes import DTYPES
from ..terminal import console

if TYPE_CHECKING:
    from gem_fast.kernels.backends import Backend, Operation

PACKAGES = (
    "gem_fast", "torch", "triton", "open_clip_torch", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy", "pillow",
)  # fmt: skip


def info() -> None:
    """Show the machine, which backends would run on its devices, and the versions."""
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")  # a long path stays whole
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

    from gem_fast.kernels.backends import names
    from gem_fast.kernels.cpu_library import paths, why_missing

    table.add_row("CPU", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for i in range(torch.cuda.device_count()):
        table.add_row(f"cuda:{i}", torch.cuda.get_device_name(i))
    table.add_row("MPS", "available" if torch.backends.mps.is_available() else "not available")
    missing = why_missing()
    table.add_row("cpu kernels", f"none: {missing}" if missing else ", ".join(paths()))
    table.add_row("backends", f"{', '.join(names())}; sdpa is plain torch where nothing attends")
    for device in ("cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))):
        for line in who_serves(device):
            table.add_row("", line)
    table.add_row("tiles", "\n".join(tiles_in_use()))
    if torch.cuda.device_count() and find_spec("triton"):
        from gem_fast.kernels import first_use

        found = (f"cuda:{i}: {line}" for i in range(torch.cuda.device_count()) for line in first_use.describe(i))
        table.add_row("first use", "\n".join(found))


def who_serves(device: str) -> Iterator[str]:
    """For each operation, what serves a typical call of each type if only the environment asks for one, and why what
    comes before it, or can't serve at all, does not."""
    import torch

    from gem_fast.kernels.backends import OPERATIONS
    from gem_fast.kernels.first_use import not_known_wrong

    place = "the CPU" if device == "cpu" else device
    for name, operation in sorted(OPERATIONS.items()):
        reasons: dict[str, list[str]] = {}
        for dtype in DTYPES:
            arguments = operation.example(getattr(torch, dtype), torch.device(device))
            try:
                chosen = operation.choose(None, *arguments, trust=not_known_wrong)
            except ValueError as error:
                yield f"{name}, {dtype} on {place}: none, {error}"
                continue
            yield f"{name}, {dtype} on {place}: {chosen.name}"
            for reason in why_not_others(operation, chosen, arguments):
                reasons.setdefault(reason, []).append(dtype)
        for reason, types in reasons.items():
            which = "" if len(types) == len(DTYPES) else f" ({', '.join(types)})"
            yield f"  {reason}{which}"


def why_not_others(operation: "Operation", chosen: "Backend", arguments: tuple) -> Iterator[str]:
    """Of the other backends of a call, those that can't serve it, and those that are taken only by name."""
    order = list(operation.backends)
    for row in order:
        if row is not chosen and (reason := row.why_not(*arguments)):
            yield f"{row.name} can't serve: {reason}"
        elif order.index(row) < order.index(chosen):
            yield f"{row.name} serves by name only"


def tiles_in_use() -> list[str]:
    """Which table of tiles Triton's attention kernels get on each GPU, in a line."""
    import torch

    from gem_fast.kernels.attention.triton import tile_choice, tile_file, tiles

    if torch.cuda.device_count() and find_spec("triton"):
        gpus = [tiles.device_of(torch.device("cuda", i)).name for i in range(torch.cuda.device_count())]
        return [f"cuda:{i}: {tile_choice.describe(name)}" for i, name in enumerate(gpus)]
    return [f"no GPU for Triton; {tile_file.VARIABLE} is {os.environ.get(tile_file.VARIABLE, 'not set')}"]
