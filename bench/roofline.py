"""A roofline on paper, predicted and not measured: `python -m gem_fast.bench.roofline [folder]`.

Writes `roofline.md`: the work of the whole forward kernel by kernel (`work.py`), the floor that
the peaks published by vendors put under each, and what the compiled inner loops of the attention kernels predict.
"""

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
from .tables import markdown_table
from .work import Task, Work, forward

MODELS = ("ViT-B-16", "ViT-L-14")
BATCHES = (1, 8, 32)
SIZE = 448
_LOOPS = {"iterations": "refine", "assignment": "assign"}
# Operations a clock of a multiprocessor: CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions".
_EXP = 16  # exp2 and the like, on every architecture here: 4 a clock of a quarter
_SCHEDULERS = 4  # each issues one instruction of a warp a clock
_SHARED = 128  # bytes of shared memory a clock: the same guide, "Shared Memory"
_LDSM = 512  # bytes that one LDSM of a warp reads at the most (.x4)


@dataclass(frozen=True)
class GPU:
    """Published peaks: dense products of bf16 with float32 sums, DRAM bandwidth, and the clock that products assume."""

    name: str
    arch: str
    multiprocessors: int
    clock_ghz: float
    tensor_tflops: float
    bandwidth_gbs: float
    fma_lanes: int  # float32 FMA a clock of a multiprocessor
    source: str

    @property
    def tensor_per_clock(self) -> float:
        """FLOP a clock of a multiprocessor."""
        return self.tensor_tflops * 1e12 / (self.multiprocessors * self.clock_ghz * 1e9)

    def per_second(self, lanes: int) -> float:
        """Operations of which a multiprocessor does `lanes` a clock."""
        return lanes * self.multiprocessors * self.clock_ghz * 1e9


A6000 = GPU("RTX A6000", "sm_86", 84, 1.80, 154.8, 768, 128, "RTX A6000 data sheet; GA102 architecture white paper")
A100 = GPU("A100 SXM 80GB", "sm_80", 108, 1.41, 312.0, 2039, 64, "A100 data sheet; A100 architecture white paper")
H100 = GPU("H100 SXM", "sm_90", 132, 1.83, 989.4, 3350, 128, "H100 data sheet; H100 architecture white paper")
H200 = GPU("H200 SXM", "sm_90", 132, 1.83, 989.4, 4800, 128, "H200 data sheet; H100 architecture white paper")
GPUS = (A6000, A100, H100, H200)


@dataclass(frozen=True)
class Cycles:
    """Clocks of a multiprocessor for one program's step of rows × keys, by what has to do them."""

    tensor: float
    exp: float
    fma: float
    shared: float
    issue: float

    @property
    def overlapped(self) -> float:
        """If other programs fill every gap: the busiest of them."""
        return max(self.tensor, self.exp, self.fma, self.shared, self.issue)

    @property
    def alternating(self) -> float:
        """If products never run beside the rest."""
        return self.tensor + max(self.exp, self.fma, self.shared, self.issue)


def cycles(compiled: Static, gpu: GPU, tile: Tile, width: int, steps: int = 1) -> Cycles:
    """What one step of an attention loop costs: two products of rows × keys × width, and the loop's instructions.

    `steps` are those that the compiler put into a turn of its loop.
    """
    loop = compiled.loop
    threads = tile.warps * 32
    fma = sum(loop.get(name, 0) for name in ("FADD", "FMUL", "FFMA"))
    return Cycles(
        tensor=4 * tile.rows * tile.keys * width / gpu.tensor_per_clock,
        exp=loop.get("MUFU", 0) * threads / _EXP / steps,
        fma=fma * threads / gpu.fma_lanes / steps,
        shared=loop.get("LDSM", 0) * tile.warps * _LDSM / _SHARED / steps,
        issue=compiled.loop_length * tile.warps / _SCHEDULERS / steps,
    )


def steps_of(compiled: Static, tile: Tile) -> int:
    """Steps in a turn of an attention loop: each logit takes one MUFU."""
    return max(1, round(compiled.loop.get("MUFU", 0) * tile.warps * 32 / (tile.rows * tile.keys)))


def floor(work: Work, gpu: GPU) -> dict[str, float]:
    """Milliseconds that each resource needs at its published peak for a kernel's `times`; the largest is its floor."""
    return {
        "tensor": work.times * work.flop / gpu.tensor_tflops / 1e9,
        "exp": work.times * work.exp / gpu.per_second(_EXP) * 1e3,
        "fma": work.times * work.fma / gpu.per_second(gpu.fma_lanes) * 1e3,
        "bytes": work.times * work.bytes / gpu.bandwidth_gbs / 1e6,
    }


def predict(task: Task, work: Work, step: Cycles, tile: Tile, gpu: GPU) -> dict[str, float]:
    """Milliseconds of an attention kernel by its compiled loop, `overlapped` and `alternating` as in `Cycles`.

    Steps of a program, and programs in whole waves of one on each multiprocessor. What lies outside the loop, memory
    latency and the launch are not in it.
    """
    softmaxes = len(task.method.pairs)
    together = work.kernel == "iterations"  # a projection to a program; the assignment does them in turns
    programs = -(-task.N // tile.rows) * task.heads * (softmaxes if together else 1)
    turns = -(-task.N // tile.keys) * (1 if together else softmaxes)
    to_ms = work.times * -(-programs // gpu.multiprocessors) * turns / gpu.clock_ghz / 1e6
    return {"overlapped": step.overlapped * to_ms, "alternating": step.alternating * to_ms}


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
        limits = floor(work, gpu)
        bound = max(limits, key=limits.__getitem__)
        ms = limits[bound]
        entry = kernels.setdefault(work.kernel, {"gflop": 0.0, "mb": 0.0, "floor": 0.0, "bounds": []})
        entry["gflop"] += work.times * work.flop / B / 1e9
        entry["mb"] += work.times * work.bytes / B / 1e6
        entry["floor"] += ms / B
        entry["bounds"].append((ms, bound))
        if work.kernel in _LOOPS:
            tile, static = compiled[gpu.arch, _LOOPS[work.kernel]]
            step = cycles(static, gpu, tile, 64, steps_of(static, tile))
            for name, ms in predict(task, work, step, tile, gpu).items():
                entry[name] = entry.get(name, 0.0) + ms / B
    for entry in kernels.values():
        entry["bound"] = max(entry.pop("bounds"))[1]
    total = {
        key: sum(entry.get(key, entry["floor"]) for entry in kernels.values())
        for key in ("floor", "overlapped", "alternating")
    }
    return {"model": model, "batch": B, "gpu": gpu.name, "kernels": kernels, "total": total}


INTRO = """# Roofline of GEM's forward, on paper

**Predicted, not measured.** No GPU was at hand: every time below is computed from published peaks and compiled code.
Written by `make roofline` (`bench/roofline.py`); the work is counted in `bench/work.py`, whose products a test holds
against torch's own counter.

bf16, 448×448, 6 GEM blocks, one iteration, projections q, k and v, labels of 150 classes.

- *Floor*: the largest of tensor cores, exponentials, float32 FMA and DRAM bytes, each at its published peak, kernel by
  kernel; bytes by the rule of `bench/work.py`: weights once a batch, what crosses kernels written once and read once,
  elementwise work on the products' own way. No launch takes time and no library kernel reaches its peak in truth, so
  times must lie above it.
- *With the compiled loops*: for the two attention kernels of GEM, what their inner loops need of the busiest pipe or of
  the issue slots, in whole waves of programs; *alternating* is the same if products never run beside exponentials.
  Everything else stays at its floor.
"""

CAVEAT = """Clocks of a multiprocessor for one step of a program, by what has to do them: products on the tensor cores,
exponentials on the special function units, FADD, FMUL and FFMA, LDSM reads of shared memory (taken as four matrices
each; none where tensor cores read it themselves), and issue slots (instructions × warps / 4). Where *issue*, *exp* or
*shared* comes near *tensor*, only overlap between programs keeps the tensor cores busy.
"""

KERNELS = """## Kernel by kernel

GFLOP and MB an image, then the floor in ms an image with what bounds it.
"""


def markdown(compiled: dict[tuple[str, str], tuple[Tile, Static]], estimates: list[dict[str, Any]]) -> str:
    """The page."""
    parts = [INTRO, "## Peaks", "", *peaks(), "", "## The forward, ms an image", "", *totals(estimates), ""]
    parts += ["## A step of the attention loops", "", CAVEAT, *steps(compiled), "", KERNELS]
    for model, batch in dict.fromkeys((e["model"], e["batch"]) for e in estimates):
        chosen = [e for e in estimates if (e["model"], e["batch"]) == (model, batch)]
        parts += [f"### {model}, batch {batch}", "", *by_kernel(chosen), ""]
    return "\n".join(parts)


def peaks() -> Iterator[str]:
    heads = ["GPU", "SMs", "GHz", "bf16 TFLOP/s, dense", "GB/s", "exp2 / clock / SM", "FMA / clock / SM", "source"]
    yield from markdown_table(heads, (
        [g.name, str(g.multiprocessors), f"{g.clock_ghz:.2f}", f"{g.tensor_tflops:g}", f"{g.bandwidth_gbs:,}",
         str(_EXP), str(g.fma_lanes), g.source]
        for g in GPUS
    ))  # fmt: skip
    yield ""
    yield "Rates a clock: CUDA C++ Programming Guide, throughput of native arithmetic instructions. The clock is"
    yield "the one that the published tensor peak assumes; under load a card may hold less."


def totals(estimates: list[dict[str, Any]]) -> Iterator[str]:
    heads = ["model", "batch", "GPU", "floor", "of it GEM's attention", "with the compiled loops", "alternating"]
    yield from markdown_table(heads, (
        [e["model"], str(e["batch"]), e["gpu"], f"{e['total']['floor']:.3f}",
         f"{sum(e['kernels'][name]['floor'] for name in _LOOPS):.3f}",
         f"{e['total']['overlapped']:.3f}", f"{e['total']['alternating']:.3f}"]
        for e in estimates
    ))  # fmt: skip


def steps(compiled: dict[tuple[str, str], tuple[Tile, Static]]) -> Iterator[str]:
    rows = []
    for gpu in GPUS:
        for operation in _LOOPS.values():
            tile, static = compiled[gpu.arch, operation]
            step = cycles(static, gpu, tile, 64, steps_of(static, tile))
            clocks = asdict(step)
            share = f"{step.tensor / step.overlapped:.0%} … {step.tensor / step.alternating:.0%}"
            rows.append([gpu.name, operation, f"{tile.rows} × {tile.keys}, {tile.warps} warps",
                         str(static.programs(gpu.arch, tile.warps)), *(f"{each:.0f}" for each in clocks.values()),
                         max(clocks, key=clocks.__getitem__), share])  # fmt: skip
    pipes = ("tensor", "exp", "fma", "shared", "issue")
    share = "of the tensor peak, at best … alternating"
    yield from markdown_table(["GPU", "kernel", "tile", "programs / SM", *pipes, "busiest", share], rows)


def by_kernel(estimates: list[dict[str, Any]]) -> Iterator[str]:
    kernels = estimates[0]["kernels"]
    rows = [
        [name, f"{first['gflop']:.2f}", f"{first['mb']:.1f}",
         *(f"{e['kernels'][name]['floor']:.4f} {e['kernels'][name]['bound']}" for e in estimates)]
        for name, first in kernels.items()
    ]  # fmt: skip
    sums = [f"{sum(each[key] for each in kernels.values()):{form}}" for key, form in (("gflop", ".2f"), ("mb", ".1f"))]
    rows.append(["total", *sums, *(f"{e['total']['floor']:.4f}" for e in estimates)])
    yield from markdown_table(["kernel", "GFLOP", "MB", *(e["gpu"] for e in estimates)], rows)


def main(folder: str = "bench/reports") -> None:
    """Compile the loops, estimate everything, write the page."""
    compiled = loops()
    estimates = [estimate(model, B, gpu, compiled) for model in MODELS for B in BATCHES for gpu in GPUS]
    write_whole(Path(folder) / "roofline.md", markdown(compiled, estimates).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
