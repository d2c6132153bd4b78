"""A roofline on paper, predicted and not measured: `python -m gem_fast.bench.roofline [folder]`.

Writes `roofline.json` and `roofline.md`: the work of the whole forward kernel by kernel (`work.py`), the floor that
published peaks put under each (`gpus.py`), and what the compiled inner loops of the attention kernels predict.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from gem_fast.kernels.attention.triton.tiles import Device, Tile, tile_for

from gem_fast.towers.packing import vision_config
from gem_fast.writing import write_whole

from .ahead import Static
from .gpu_report import Job, compile_all
from .gpus import GPU, GPUS, Cycles, cycles, steps_of
from .work import Task, Work, forward

MODELS = ("ViT-B-16", "ViT-L-14")
BATCHES = (1, 8, 32)
SIZE = 448
_LOOPS = {"iterations": "refine", "assignment": "assign"}


@dataclass(frozen=True)
class Floor:
    """Milliseconds that each resource needs at its published peak; the largest is the floor."""

    tensor: float
    exp: float
    fma: float
    bytes: float

    @property
    def ms(self) -> float:
        return max(self.tensor, self.exp, self.fma, self.bytes)

    @property
    def bound(self) -> str:
        values = asdict(self)
        return max(values, key=lambda name: values[name])


def floor(work: Work, gpu: GPU) -> Floor:
    """Of all `times` of a kernel."""
    return Floor(
        tensor=work.times * work.flop / gpu.tensor_tflops / 1e9,
        exp=work.times * work.exp / gpu.exp_per_second * 1e3,
        fma=work.times * work.fma / gpu.fma_per_second * 1e3,
        bytes=work.times * work.bytes / gpu.bandwidth_gbs / 1e6,
    )


@dataclass(frozen=True)
class Prediction:
    """Milliseconds of an attention kernel by its compiled loop: all its pipes overlapping, and products alternating
    with the rest. What lies outside the loop, memory latency and the launch are not in it.
    """

    overlapped: float
    alternating: float


def predict(task: Task, work: Work, step: Cycles, tile: Tile, gpu: GPU) -> Prediction:
    """Steps of a program, and programs in whole waves of one on each multiprocessor."""
    softmaxes = len(task.options.projections)
    row_tiles = -(-task.N // tile.rows)
    together = work.kernel == "iterations"  # a projection to a program; the assignment does them in turns
    programs = row_tiles * task.heads * (softmaxes if together else 1)
    steps = -(-task.N // tile.keys) * (1 if together else softmaxes)
    waves = -(-programs // gpu.multiprocessors)
    to_ms = work.times * waves * steps / gpu.clock_ghz / 1e6
    return Prediction(step.overlapped * to_ms, step.alternating * to_ms)


def loops(width: int = 64) -> dict[tuple[str, str], tuple[Tile, Static]]:
    """(architecture, operation) to the table's tile for bf16 heads of 64 channels, compiled."""
    jobs = []
    for arch in dict.fromkeys(gpu.arch for gpu in GPUS):
        for operation in _LOOPS.values():
            tile = tile_for(Device(arch, 100), operation, width, torch.bfloat16)
            assert tile is not None
            jobs.append(Job(arch, operation, width, "bf16", "ieee", tile))
    return {(j.arch, j.operation): (j.tile, it) for j, it in zip(jobs, compile_all(jobs), strict=True)}


def estimate(model: str, B: int, gpu: GPU, compiled: dict[tuple[str, str], tuple[Tile, Static]]) -> dict[str, Any]:
    """Floors and predictions of a model in a batch on a GPU, in ms an image, by kernel."""
    task = Task(vision_config(open_clip.get_model_config(model)), B, SIZE)
    kernels: dict[str, dict[str, Any]] = {}
    for work in forward(task):
        limit = floor(work, gpu)
        entry = kernels.setdefault(work.kernel, {"gflop": 0.0, "mb": 0.0, "floor": 0.0, "bounds": []})
        entry["gflop"] += work.times * work.flop / B / 1e9
        entry["mb"] += work.times * work.bytes / B / 1e6
        entry["floor"] += limit.ms / B
        entry["bounds"].append((limit.ms, limit.bound))
        if work.kernel in _LOOPS:
            tile, static = compiled[gpu.arch, _LOOPS[work.kernel]]
            told = predict(task, work, cycles(static, gpu, tile, 64, steps_of(static, tile)), tile, gpu)
            for name, ms in asdict(told).items():
                entry[name] = entry.get(name, 0.0) + ms / B
    for entry in kernels.values():
        entry["bound"] = max(entry.pop("bounds"))[1]
    total = {
        key: sum(entry.get(key, entry["floor"]) for entry in kernels.values())
        for key in ("floor", "overlapped", "alternating")
    }
    return {"model": model, "batch": B, "gpu": gpu.name, "kernels": kernels, "total": total}


def main(folder: str = "bench/reports") -> None:
    """Compile the loops, estimate everything, write both files."""
    from .roofline_report import markdown

    compiled = loops()
    estimates = [estimate(model, B, gpu, compiled) for model in MODELS for B in BATCHES for gpu in GPUS]
    record = {
        "predicted": "on paper; nothing here was measured",
        "gpus": [asdict(gpu) for gpu in GPUS],
        "steps": list(step_records(compiled)),
        "estimates": estimates,
    }
    out = Path(folder)
    write_whole(out / "roofline.json", (json.dumps(record, indent=1) + "\n").encode())
    write_whole(out / "roofline.md", markdown(record).encode())


def step_records(compiled: dict[tuple[str, str], tuple[Tile, Static]]) -> Iterator[dict[str, Any]]:
    for gpu in GPUS:
        for operation in _LOOPS.values():
            tile, static = compiled[gpu.arch, operation]
            step = cycles(static, gpu, tile, 64, steps_of(static, tile))
            yield {
                "gpu": gpu.name, "operation": operation, "tile": asdict(tile),
                "programs": static.programs(gpu.arch, tile.warps),
                **asdict(step), "overlapped": step.overlapped, "alternating": step.alternating,
            }  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
