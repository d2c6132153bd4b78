"""What the Triton kernels compile to on GPUs that are not there: `python -m tools.gpu_report [folder]`.

Writes `gpu_static.json` and `gpu_static.md`. Nothing here was timed.
"""

import importlib
import itertools
import json
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from gem_fast.kernels import triton_host
from gem_fast.kernels.activation import triton_quick_gelu
from gem_fast.kernels.attention.triton.tiles import FAMILIES, Tile, entries_of, split_width
from gem_fast.kernels.decoding import triton_heatmaps
from gem_fast.kernels.decoding.triton_labels import CLASSES, PIXELS, WARPS
from gem_fast.kernels.launches import Launches
from torch._subclasses.fake_tensor import FakeTensorMode

from gem_fast.towers.vision_config import VisionConfig
from gem_fast.towers.vit import GemVisionTransformer

from .compiled import SHARED_LIMIT, Static, compile_for

ARCHITECTURES = tuple(arch for arch in FAMILIES if arch in SHARED_LIMIT)
ATTENTION = "attention.triton"
KERNELS = {
    "round": (f"{ATTENTION}.round", "round_kernel"),
    "normalize": (f"{ATTENTION}.refine", "normalize_kernel"),
    "refine": (f"{ATTENTION}.refine", "refine_kernel"),
    "assign": (f"{ATTENTION}.assign", "assign_kernel"),
    "assign_in_place": (f"{ATTENTION}.assign", "assign_kernel"),
    "attend": (f"{ATTENTION}.attend", "attend_kernel"),
    "attend_near": (f"{ATTENTION}.attend", "attend_kernel"),
    "resident": (f"{ATTENTION}.resident", "resident_kernel"),
    "layer_norm": ("layer_norm.kernel", "layer_norm_kernel"),
    "add_layer_norm": ("layer_norm.kernel", "layer_norm_kernel"),
    "quick_gelu": ("activation.kernel", "quick_gelu_kernel"),
    "unit_rows": ("unit_rows.kernel", "unit_rows_kernel"),
    "labels": ("decoding.labels_kernel", "labels_kernel"),
    "extremes": ("decoding.heatmaps_kernel", "extremes_kernel"),
    "heatmaps": ("decoding.heatmaps_kernel", "heatmaps_kernel"),
}
BY_ROW = ("layer_norm", "add_layer_norm", "unit_rows")
HEADS = (32, 64, 72, 80, 88, 96, 104, 112, 128)  # their channels, in all towers that are loaded
SPILLED = 48  # bytes, the most that a thread may spill
SDPA = "scaled_dot_product_attention"


@dataclass(frozen=True)
class Job:
    """One compilation: a kernel on an architecture, for heads of `width` channels."""

    arch: str
    operation: str
    width: int
    dtype: str
    precision: str
    tile: Tile


def table_jobs() -> Iterator[Job]:
    """Attention's kernels for all heads, in every type on every architecture, and the other kernels."""
    for arch in ARCHITECTURES:
        yield Job(arch, "labels", 0, "fp32", "ieee", Tile(PIXELS, CLASSES, WARPS, 3))
        yield Job(arch, "extremes", 0, "fp32", "ieee", Tile(triton_heatmaps.CORNERS, 0, 4, 3))
        yield Job(arch, "heatmaps", 0, "fp32", "ieee", Tile(triton_heatmaps.PIXELS, 0, 4, 3))
        for dtype, precision in (("bf16", "ieee"), ("fp16", "ieee"), ("fp32", "ieee"), ("fp32", "tf32")):
            if precision == "tf32" and not arch.startswith("sm_"):
                continue
            yield Job(arch, "normalize", 128, dtype, precision, Tile(128, 0, 4, 3))
            if precision == "tf32":
                yield Job(arch, "round", 128, dtype, precision, Tile(64, 0, 4, 3))
            else:
                for operation in BY_ROW:
                    yield Job(arch, operation, 1280, dtype, precision, Tile(1, 0, 8, 3))
                yield Job(arch, "quick_gelu", triton_quick_gelu.BLOCK, dtype, precision, Tile(1, 0, 4, 3))
            found = entries_of(FAMILIES[arch], 32 if dtype == "fp32" else 16)
            for (operation, entries), D in itertools.product(found.items(), HEADS):
                tile = next((tile for widest, tile in entries if sum(split_width(D)) <= widest), None)
                if tile is not None:
                    yield Job(arch, operation, D, dtype, precision, tile)


def compile_job(job: Job) -> Static:
    """Compile a job's kernel; Triton is imported here, in the process that compiles."""
    module, name = KERNELS[job.operation]
    kernel: Any = getattr(importlib.import_module(f"gem_fast.kernels.{module}"), name)
    main, rest = split_width(job.width)
    possible = {
        "D": job.width, "MAIN": main, "REST": rest, "ROWS": job.tile.rows, "KEYS": job.tile.keys, "WHOLE": False,
        "IN_PLACE": job.operation == "assign_in_place", "NEAR": job.operation == "attend_near",
        "STEEPEST": 2.0**13, "PRECISION": job.precision, "MEAN": True, "BLOCK": job.width, "NORMS": True,
        **dict.fromkeys(("FIRST", "ADDS", "ASIDE"), int(job.operation == "add_layer_norm")),
        "stride_h": job.width, "value_h": job.width, "out_h": job.width,
        "C": job.width, "WIDTH": 1 << (job.width - 1).bit_length(), "PIXELS": job.tile.rows, "CLASSES": job.tile.keys,
    }  # fmt: skip
    constants = {name: value for name, value in possible.items() if name in kernel.arg_names}
    return compile_for(job.arch, kernel, constants, job.dtype, job.tile.warps, job.tile.stages)


def forward_launches(activation: str) -> Counter[str]:
    """Launches of ViT-B/16 on an image of 448² in bfloat16 on a fake GPU, by operator, once its positions are kept."""
    triton_host._asked.cache_clear()
    hopper = SimpleNamespace(major=9, minor=0)
    there: Any = patch.multiple(torch.cuda, is_initialized=lambda: True, get_device_properties=lambda _: hopper)
    with there, patch.object(torch.version, "hip", None), FakeTensorMode():
        config = VisionConfig(768, 12, 12, 3072, 16, (28, 28), 512, activation)
        with torch.device("cuda:0"):
            vision, pixels = GemVisionTransformer(config), torch.empty(1, 3, 448, 448)
        for module in vision.modules():  # fake weights can't be cast in place
            for name, value in module.named_parameters(recurse=False):
                setattr(module, name, torch.nn.Parameter(value.bfloat16(), False))
        flash = torch.ops.aten._scaled_dot_product_flash_attention.default  # as a GPU that is there takes
        with torch.no_grad(), Launches() as seen, patch.object(F, SDPA, lambda q, k, v: flash(q, k, v)[0]):
            vision(pixels)
    triton_host._asked.cache_clear()
    return seen.counts


def table_rows(jobs: list[Job], results: list[Static]) -> Iterator[str]:
    heads = "GPU, kernel, widths, type, rows × keys, warps, stages, registers, spilled bytes, shared bytes, programs"
    yield "| " + heads.replace(", ", " | ") + " | matrix |"
    yield "|---" * 12 + "|"
    for job, pairs in itertools.groupby(zip(jobs, results, strict=True), lambda pair: replace(pair[0], width=0)):
        of, them = zip(*pairs, strict=True)
        kind = job.dtype if job.precision == "ieee" else job.precision
        t, programs = job.tile, min(it.programs(job.arch, job.tile.warps) or 0 for it in them) or "–"
        keys = "–" if job.operation == "resident" or not t.keys else str(t.keys)
        widths = "–".join(str(width) for width in sorted({of[0].width, of[-1].width}))
        registers, spills, shared = map(max, zip(*((it.registers, it.spills, it.shared) for it in them), strict=True))
        yield (
            f"| {job.arch} | {job.operation} | {widths} | {kind} | {t.rows} × {keys} | {t.warps} | {t.stages} "
            f"| {registers} | {spills} | {shared:,} | {programs} | {min(it.tensor_core for it in them)} |"
        )


def markdown(jobs: list[Job], results: list[Static]) -> str:
    import triton

    intro = f"""# The Triton kernels as compiled (triton {triton.__version__})

Read from machine code, compiled ahead of time with no GPU: **nothing here was timed**. Written by `make gpu-report`.
Triton compiles no tensor-core products for compute capability 7.5, so the backend refuses such GPUs.
"""
    sections = [
        intro,
        "## Launches of a forward",
        "",
        "GEM on ViT-B/16, one image of 448², bfloat16, no CUDA graph; each operator of torch that is no view is one.",
        *(f"- {name}: {sum(forward_launches(name).values())}" for name in ("gelu", "quick_gelu")),
        "",
        "## Every entry of the tile table",
        "",
        f"`widths` are the heads of an entry, of {', '.join(map(str, HEADS))} channels, or the channels of LayerNorm.",
        "What follows is the most that one of them takes, of `programs` and `matrix` the least.",
        "`programs` is how many a multiprocessor holds at once, by registers, shared memory and warps.",
        "`matrix` is the number of tensor-core instructions in the kernel.",
        "",
        *table_rows(jobs, results),
    ]
    return "\n".join(sections) + "\n"


def main(folder: str = "bench/reports") -> None:
    """Compile everything, write both files, and fail if a kernel spills more than `SPILLED` or outgrows its memory."""
    jobs = list(table_jobs())
    with multiprocessing.get_context("spawn").Pool() as pool:
        results = pool.map(compile_job, jobs, chunksize=1)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    records = [asdict(job) | asdict(it) for job, it in zip(jobs, results, strict=True)]
    (out / "gpu_static.json").write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")
    (out / "gpu_static.md").write_text(markdown(jobs, results))
    bad = [it.spills > SPILLED or it.shared > SHARED_LIMIT[job.arch] for job, it in zip(jobs, results, strict=True)]
    for job in itertools.compress(jobs, bad):
        print(f"spills more than {SPILLED} bytes or outgrows shared memory: {job}")
    sys.exit(any(bad))


if __name__ == "__main__":
    main(*sys.argv[1:])
