"""The roofline's page, from its record."""

from collections.abc import Iterator
from typing import Any

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


def markdown(record: dict[str, Any]) -> str:
    parts = [INTRO, "## Peaks", "", *peaks(record["gpus"]), "", "## The forward, ms an image", "", *totals(record), ""]
    parts += ["## A step of the attention loops", "", CAVEAT, *steps(record["steps"]), ""]
    parts += [
        "## Kernel by kernel",
        "",
        "GFLOP and MB an image, then the floor in ms an image with what bounds it.",
        "",
    ]
    for model in dict.fromkeys(e["model"] for e in record["estimates"]):
        for batch in dict.fromkeys(e["batch"] for e in record["estimates"]):
            chosen = [e for e in record["estimates"] if (e["model"], e["batch"]) == (model, batch)]
            parts += [f"### {model}, batch {batch}", "", *by_kernel(chosen), ""]
    return "\n".join(parts)


def table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def peaks(gpus: list[dict[str, Any]]) -> Iterator[str]:
    heads = ["GPU", "SMs", "GHz", "bf16 TFLOP/s, dense", "GB/s", "exp2 / clock / SM", "FMA / clock / SM", "source"]
    yield from table(
        heads,
        [
            [g["name"], str(g["multiprocessors"]), f"{g['clock_ghz']:.2f}", f"{g['tensor_tflops']:g}",
             f"{g['bandwidth_gbs']:,}", "16", str(g["fma_lanes"]), g["source"]]
            for g in gpus
        ],
    )  # fmt: skip
    yield ""
    yield "Rates a clock: CUDA C++ Programming Guide, throughput of native arithmetic instructions. The clock is"
    yield "the one that the published tensor peak assumes; under load a card may hold less."


def totals(record: dict[str, Any]) -> Iterator[str]:
    heads = ["model", "batch", "GPU", "floor", "of it GEM's attention", "with the compiled loops", "alternating"]
    rows = []
    for e in record["estimates"]:
        own = sum(e["kernels"][name]["floor"] for name in ("iterations", "assignment"))
        t = e["total"]
        rows.append(
            [e["model"], str(e["batch"]), e["gpu"], f"{t['floor']:.3f}", f"{own:.3f}", f"{t['overlapped']:.3f}",
             f"{t['alternating']:.3f}"]
        )  # fmt: skip
    yield from table(heads, rows)


def steps(records: list[dict[str, Any]]) -> Iterator[str]:
    pipes = ["tensor", "exp", "fma", "shared", "issue"]
    rows = []
    for r in records:
        t = r["tile"]
        busiest = max(pipes, key=lambda pipe: r[pipe])
        tile = f"{t['rows']} × {t['keys']}, {t['warps']} warps"
        numbers = [f"{r[pipe]:.0f}" for pipe in pipes]
        share = f"{r['tensor'] / r['overlapped']:.0%} … {r['tensor'] / r['alternating']:.0%}"
        rows.append([r["gpu"], r["operation"], tile, str(r["programs"]), *numbers, busiest, share])
    heads = [
        "GPU",
        "kernel",
        "tile",
        "programs / SM",
        *pipes,
        "busiest",
        "of the tensor peak, at best … alternating",
    ]
    yield from table(heads, rows)


def by_kernel(estimates: list[dict[str, Any]]) -> Iterator[str]:
    rows = []
    for name, first in estimates[0]["kernels"].items():
        times = [f"{e['kernels'][name]['floor']:.4f} {e['kernels'][name]['bound']}" for e in estimates]
        rows.append([name, f"{first['gflop']:.2f}", f"{first['mb']:.1f}", *times])
    rows.append(["total", f"{sum(k['gflop'] for k in estimates[0]['kernels'].values()):.2f}",
                 f"{sum(k['mb'] for k in estimates[0]['kernels'].values()):.1f}",
                 *(f"{e['total']['floor']:.4f}" for e in estimates)])  # fmt: skip
    yield from table(["kernel", "GFLOP", "MB", *(e["gpu"] for e in estimates)], rows)
