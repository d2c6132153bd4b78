"""A roofline on paper, predicted and not measured: `python -m tools.roofline [folder]` (`make roofline`).

Writes `roofline.md`: the work of the whole forward kernel by kernel (`bench/work.py`), and the floor that the peaks
published by vendors put under each.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from gem_fast.bench.tables import markdown_table
from gem_fast.bench.work import Task, Work, forward

from gem_fast.towers.served import vision_config
from gem_fast.writing import write_whole

MODELS = ("ViT-B-16", "ViT-L-14")
BATCHES = (1, 8, 32)
SIZE = 448
_OWN = ("iterations", "assignment")  # GEM's attention
# Operations a clock of a multiprocessor: CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions".
_EXP = 16  # exp2 and the like, on every architecture here: 4 a clock of a quarter


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


def floor(work: Work, gpu: GPU) -> dict[str, float]:
    """Milliseconds that each resource needs at its published peak for a kernel's `times`; the largest is its floor."""
    return {
        "tensor": work.times * work.flop / gpu.tensor_tflops / 1e9,
        "exp": work.times * work.exp / gpu.per_second(_EXP) * 1e3,
        "fma": work.times * work.fma / gpu.per_second(gpu.fma_lanes) * 1e3,
        "bytes": work.times * work.bytes / gpu.bandwidth_gbs / 1e6,
    }


def estimate(model: str, B: int, gpu: GPU) -> dict[str, Any]:
    """Floors of a model in a batch on a GPU, in ms an image, by kernel."""
    task = Task(vision_config(open_clip.get_model_config(model)), B, SIZE)
    kernels: dict[str, dict[str, Any]] = {}
    for work in forward(task):
        limits = floor(work, gpu)
        bound = max(limits, key=limits.__getitem__)
        entry = kernels.setdefault(work.kernel, {"gflop": 0.0, "mb": 0.0, "floor": 0.0, "bounds": []})
        entry["gflop"] += work.times * work.flop / B / 1e9
        entry["mb"] += work.times * work.bytes / B / 1e6
        entry["floor"] += limits[bound] / B
        entry["bounds"].append((limits[bound], bound))
    for entry in kernels.values():
        entry["bound"] = max(entry.pop("bounds"))[1]
    total = sum(entry["floor"] for entry in kernels.values())
    return {"model": model, "batch": B, "gpu": gpu.name, "kernels": kernels, "floor": total}


INTRO = """# Roofline of GEM's forward, on paper

**Predicted, not measured**: every time below is computed from published peaks.
Written by `make roofline` (`tools/roofline.py`); the work is counted in `bench/work.py`, whose products a test holds
against torch's own counter.

bf16, 448×448, 6 GEM blocks, one iteration, projections q, k and v, labels of 150 classes.

The *floor* is the largest of tensor cores, exponentials, float32 FMA and DRAM bytes, each at its published peak, kernel
by kernel; bytes by the rule of `bench/work.py`: weights once a batch, what crosses kernels written once and read once,
elementwise work on the products' own way. No launch takes time and no library kernel reaches its peak in truth, so
times must lie above it.
"""

KERNELS = """## Kernel by kernel

GFLOP and MB an image, then the floor in ms an image with what bounds it.
"""


def markdown(estimates: list[dict[str, Any]]) -> str:
    """The page."""
    parts = [INTRO, "## Peaks", "", *peaks(), "", "## The forward, ms an image", "", *totals(estimates), "", KERNELS]
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
    heads = ["model", "batch", "GPU", "floor", "of it GEM's attention"]
    yield from markdown_table(heads, (
        [e["model"], str(e["batch"]), e["gpu"], f"{e['floor']:.3f}",
         f"{sum(e['kernels'][name]['floor'] for name in _OWN):.3f}"]
        for e in estimates
    ))  # fmt: skip


def by_kernel(estimates: list[dict[str, Any]]) -> Iterator[str]:
    kernels = estimates[0]["kernels"]
    rows = [
        [name, f"{first['gflop']:.2f}", f"{first['mb']:.1f}",
         *(f"{e['kernels'][name]['floor']:.4f} {e['kernels'][name]['bound']}" for e in estimates)]
        for name, first in kernels.items()
    ]  # fmt: skip
    sums = [f"{sum(each[key] for each in kernels.values()):{form}}" for key, form in (("gflop", ".2f"), ("mb", ".1f"))]
    rows.append(["total", *sums, *(f"{e['floor']:.4f}" for e in estimates)])
    yield from markdown_table(["kernel", "GFLOP", "MB", *(e["gpu"] for e in estimates)], rows)


def main(folder: str = "bench/reports") -> None:
    """Estimate everything, write the page."""
    estimates = [estimate(model, B, gpu) for model in MODELS for B in BATCHES for gpu in GPUS]
    write_whole(Path(folder) / "roofline.md", markdown(estimates).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
