"""`gem-fast tune` as a function: choose Triton's tiles by measuring them on the GPU at hand; keep them in a file."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import torch

from gem_fast.kernels.attention.triton.launch import why_not
from gem_fast.kernels.attention.triton.tile_file import TileTable, default_path, read_table
from gem_fast.kernels.attention.triton.tile_search import Limits, Problem, Trial, trials_ahead, tune
from gem_fast.kernels.attention.triton.tile_trials import DTYPES, make_bench, median_ms, try_ahead
from gem_fast.kernels.attention.triton.tiles import FAMILIES, Device, device_of

from .cores import cores
from .dtypes import dtype_name
from .errors import ModelError
from .towers.configs import find_config, supported_models
from .towers.served import vision_config, why_unsupported
from .towers.vision_config import VisionConfig
from .writing import write_whole


def config_of(model: str) -> VisionConfig:
    """The shape of a model's vision tower, without its weights; ModelError for a name that can't be served."""
    config = find_config(model)
    if config is None or why_unsupported(config.model_cfg):
        raise ModelError(f"no supported model is called {model!r}; supported are: {', '.join(supported_models())}")
    return vision_config(config.model_cfg)


def problems_of(model: str, sizes: Sequence[int], batches: Sequence[int], kinds: Sequence[str]) -> list[Problem]:
    """The attention problems of a model on square images of some sizes, in some batches and kinds of arithmetic.

    A kind is a type of `DTYPES`, by its name or its short name, or `tf32`.

    Raises:
        ValueError: a size is no multiple of the model's patch, or there is no such model or kind.
    """
    config = config_of(model)
    for size in sizes:
        if size < 1 or size % config.patch_size:
            raise ValueError(f"size must be a multiple of {model}'s patch, {config.patch_size}, got {size}")
    width = config.width // config.heads
    return [
        Problem(batch, 1 + (size // config.patch_size) ** 2, config.heads, width, kind_name(kind))
        for kind in kinds
        for size in sizes
        for batch in batches
    ]


def kind_name(kind: str) -> str:
    """`tf32`, or the name of a type; ValueError for anything else."""
    if kind == "tf32":
        return kind
    try:
        return dtype_name(kind)
    except ValueError as error:
        raise ValueError(f"{error}; tf32 is possible too") from error


def tune_tiles(
    problems: Sequence[Problem],
    *,
    device: str | torch.device = "cuda",
    out: Path | None = None,
    report: Callable[[Problem, Trial], None] = lambda problem, trial: None,
    time: Callable[[Callable[[], object]], float] = median_ms,
) -> tuple[Path, TileTable]:
    """Measure every candidate tile for every problem, and add the fastest to the table file.

    Args:
        problems: what to tune for.
        device: the GPU.
        out: the table file; None is the one that is picked up by itself on this GPU.
        report: called with each candidate as it has been tried.
        time: median time of a call in ms.

    Returns:
        The file and all of its entries. Entries of other shapes that it had stay.

    Raises:
        ValueError: there is no GPU that Triton serves, the file exists and is not this GPU's table, or a problem can't
            be served.
        RuntimeError: the built-in tiles fail or are wrong here.
    """
    import triton

    where = torch.device(device)
    for problem in problems:
        _check(problem, where)
    gpu = device_of(where)
    path = out or default_path(gpu.name, triton.__version__)
    table = read_table(path, gpu.name, triton.__version__) if path.exists() else TileTable(gpu.name, triton.__version__)
    for problem in problems:
        if where.type == "cuda":
            _compile_ahead(problem, where, gpu)
        bench = make_bench(problem, where, functools.partial(report, problem), time)
        table = table.with_entries(tune(problem, gpu, limits_of(where), bench, DTYPES[problem.kind]))
        write_whole(path, table.to_json().encode())
    return path, table


def _check(problem: Problem, device: torch.device) -> None:
    if problem.kind not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {problem.kind!r}")
    if min(problem.B, problem.N, problem.H, problem.D) < 1:
        raise ValueError(f"images, tokens, heads and head width must be 1 or more, got {problem}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("tune measures on a CUDA or ROCm device, and torch finds none here")
    sample = torch.empty(problem.B, 1, 3, problem.H, problem.D, dtype=DTYPES[problem.kind], device=device)
    reason = why_not(sample)
    if reason:
        raise ValueError(f"tune measures what Triton can serve, and here it can't: {reason}")
    if problem.kind == "tf32" and FAMILIES.get(device_of(device).arch) not in ("mma", "wgmma", "tcgen05"):
        raise ValueError(f"tf32 is an arithmetic of NVIDIA's tensor cores, which {device} does not have")


def _compile_ahead(problem: Problem, where: torch.device, gpu: Device) -> None:
    """Compiling takes the host longer than trying takes the GPU: all its cores compile before anything is timed."""
    trials = trials_ahead(problem, gpu, limits_of(where), DTYPES[problem.kind])
    pool = ProcessPoolExecutor(processes_for(where), get_context("spawn"))
    try:
        with suppress(BrokenProcessPool):  # of a trial that ends its process, which the search tells
            for done in [pool.submit(try_ahead, problem, where, *trial) for trial in trials]:
                done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def processes_for(device: torch.device) -> int:
    """How many may use a GPU beside each other: as many as there are cores, and 4 GiB of its memory for each."""
    return max(1, min(cores(), torch.cuda.get_device_properties(device).total_memory // 2**32))


def limits_of(device: torch.device) -> Limits:
    """Shared memory of a program and threads of a warp; the interpreter has as much as a GPU."""
    if device.type != "cuda":
        return Limits(shared=101_376)
    properties = torch.cuda.get_device_properties(device)
    shared = getattr(properties, "shared_memory_per_block_optin", 0) or 65_536
    return Limits(int(shared), int(getattr(properties, "warp_size", 32)))
