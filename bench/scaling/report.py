"""The page of costs, from the model's plans."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..roofline_report import table
from .model import Machine, Plan, Prices, Workload, plan
from .workloads import GPU, GPU_BATCH, OUTPUTS, cpu_workload, gpu_workload

MILLION, BILLION = 1e6, 1e9
_CORES_BESIDE_GPU = (8, 16, 32, 64, 128)
_KINDS = {"web": "a sample photo as it is", "camera": "a mosaic of it, of a camera's size"}


@dataclass(frozen=True)
class Assumed:
    """What was not measured here and is given instead.

    Attributes:
        storage: bytes a second of disk or network, in all.
        memory: bytes a second of memory traffic of the 16-core machine and of the GPU's host.
        link: bytes a second between memory and GPU.
        prices: of an hour.
    """

    storage: float = 500e6
    memory: float = 80e9
    link: float = 25e9
    prices: Prices = field(default_factory=Prices)


def markdown(rates: dict[str, Any], estimate: dict[str, Any], assumed: Assumed) -> str:
    cores = rates["cores"]
    here = Machine(f"{cores} cores", cores, rates["copy_bytes_per_second"], assumed.storage)
    large = Machine("16 cores", 16, assumed.memory, assumed.storage)
    cpu = [plan(cpu_workload(rates, photo, dtype, outputs), machine, min(cores, machine.cores))
           for photo in rates["photos"] for outputs in OUTPUTS for dtype in ("float32", "bfloat16")
           for machine in (here, large)]  # fmt: skip
    gpu_loads = [gpu_workload(rates, estimate, p, o, link=assumed.link) for p in rates["photos"] for o in OUTPUTS]
    host = Machine(f"16 cores + {GPU}", 16, assumed.memory, assumed.storage, gpus=1)
    gpu = [plan(load, host, 2) for load in gpu_loads]
    parts = [
        *_intro(rates, assumed), "## In short", "", *_summary(rates, gpu_loads), "",
        "## Measured rates", "", *_rates(rates), "",
        "## The model against a run", "", *_check(rates, cores), "",
        "## Cost by stage", "", "Core-hours a million images; GPU-hours are predicted.", "",
        *_by_stage([p.workload for p in cpu[::2]] + gpu_loads), "",
        "## Machines", "", *_machines([*cpu, *gpu], assumed.prices), "",
        "## One process or several", "", *_processes(rates, large), "",
        f"## Feeding one {GPU}", "", *_feeding(rates, estimate, assumed), "",
    ]  # fmt: skip
    return "\n".join(parts)


def _intro(rates: dict[str, Any], assumed: Assumed) -> Iterator[str]:
    copied = rates["copy_bytes_per_second"] / 1e9
    yield f"""# A million and a billion images, on paper

Written by `make scaling` (`bench/scaling`) from `rates.json` (measured by `make rates`) and `roofline.json`. Rates were
measured on {rates["machine_line"]}.
**Everything about more cores and about a GPU is predicted**: the {GPU}'s times are the roofline's for batches of
{GPU_BATCH}, products never beside exponentials, and no GPU has confirmed them.

{rates["model"]} at {rates["size"]}² (`resize="squash"`), {rates["classes"]} classes, written at the photo's size:
labels and overlay, or labels alone (`gem-fast segment --no-overlays`). The photos:

{_photos(rates)}

Assumptions:

- Images are independent and shared out among processes of {rates["cores"]} cores, each a `segment_files`: a thread
  reads and decodes ahead, the other stages follow one another, and all but encoding stays on one thread. Processes do
  not disturb each other but for memory and storage, so throughput grows with cores until one of those is spent.
- A stage costs what it cost with every core busy. A core of the larger machines is taken to be as fast as one here.
- Memory: encoding moves at least the bytes that `bench/work.py` counts. Here {copied:.0f} GB/s, measured by a copy;
  elsewhere {assumed.memory / 1e9:g} GB/s (`--memory-gbs`), assumed.
- Storage gives {assumed.storage / 1e6:g} MB/s, read and written together (`--storage-mbs`), assumed; files measured
  here lay in the page cache. {assumed.link / 1e9:g} GB/s to and from the GPU (`--link-gbs`), assumed.
- Start, the words' encoding (once a run), heat maps, failures and the legends' few bytes are left out.
"""


def _summary(rates: dict[str, Any], gpu_loads: Sequence[Workload]) -> Iterator[str]:
    """Where the bottleneck lies, and where it moves."""
    for photo in rates["photos"]:
        shares = ", ".join(_shares(cpu_workload(rates, photo, "bfloat16", "labels and overlay"))[:2])
        yield f"- *{photo}* on CPUs alone, labels and overlay in bfloat16: of the core time {shares}."
    for load in gpu_loads:
        shares = ", ".join(_shares(load)[:2])
        yield f"- *{load.name}*: {load.cores_to_feed(2)} cores feed the GPU; of their time {shares}."


def _shares(load: Workload) -> list[str]:
    """Stages with their share of the core time, the largest first."""
    ordered = sorted(load.stages, key=lambda stage: -stage.core_seconds)
    return [f"{stage.core_seconds / load.core_seconds:.0%} on `{stage.name}`" for stage in ordered]


def _photos(rates: dict[str, Any]) -> str:
    return "\n".join(
        f"- *{name}*: {d['width']}×{d['height']}, {d['jpeg_bytes'] / 1e3:,.0f} kB of JPEG, {_KINDS[name]}"
        for name, d in rates["photos"].items()
    )


def _rates(rates: dict[str, Any]) -> Iterator[str]:
    yield "Milliseconds of one thread, alone and while every core does the same; then what is written:"
    yield ""
    rows = []
    for name, details in rates["photos"].items():
        for stage, busy in details["busy"].items():
            written = details.get(f"{stage.removeprefix('write ')}_bytes") if stage.startswith("write") else None
            row = [name, stage, f"{1e3 * details['alone'][stage]:.1f}", f"{1e3 * busy:.1f}"]
            rows.append([*row, f"{written / 1e3:,.0f} kB" if written else ""])
    yield from table(["photo", "stage", "alone", "busy", "written"], rows)
    yield ""
    rows = [
        [e["dtype"], str(e["batch"]), str(e["threads"]), f"{1e3 * e['seconds']:.0f}", f"{e['peak_mb']:,.0f}"]
        for e in rates["encode"]
    ]
    yield from table(["encode", "batch", "threads", "ms an image", "peak MB of the process"], rows)


def _check(rates: dict[str, Any], cores: int) -> Iterator[str]:
    run = rates["end_to_end"]
    load = cpu_workload(rates, run["photo"], run["dtype"], "labels and overlay")
    predicted, measured = load.process_seconds(cores), run["seconds"]
    yield f"`segment_files` on {run['photo']} photos in {run['dtype']}, batches of {run['batch']}, {cores} cores:"
    yield f"{predicted:.2f} s an image by the model, {measured:.2f} s measured ({predicted / measured - 1:+.0%})."


def _by_stage(loads: Sequence[Workload]) -> Iterator[str]:
    names = ["decode", "resize", "encode", "labels", "write labels", "write overlay"]
    rows = []
    for load in loads:
        hours = {stage.name: stage.core_seconds * MILLION / 3600 for stage in load.stages}
        gpu = f"{load.gpu_seconds * MILLION / 3600:.2f}" if load.gpu_seconds else ""
        cells = [f"{hours[name]:,.1f}" if name in hours else "" for name in names]
        rows.append([load.name, *cells, f"{sum(hours.values()):,.1f}", gpu])
    yield from table(["workload", *names, "core-hours in all", "GPU-hours"], rows)


def _machines(plans: Sequence[Plan], prices: Prices) -> Iterator[str]:
    heads = ["workload", "machine", "images/s", "bottleneck", "then", "hours a million", "years a billion",
             "core-hours a million", "TB read, written a billion", "MB/s of storage"]  # fmt: skip
    priced = prices.core is not None or prices.gpu is not None
    rows = []
    for p in plans:
        read, written = p.terabytes(BILLION)
        others = sorted((name for name in p.demands if name != p.bottleneck), key=lambda name: -p.demands[name])
        moved = (p.workload.read + p.workload.written) / p.seconds / 1e6
        row = [p.workload.name, p.machine.name, f"{1 / p.seconds:,.2f}", p.bottleneck,
               f"{others[0]}, {p.busy(others[0]):.0%} busy", f"{p.hours(MILLION):,.1f}",
               f"{p.hours(BILLION) / 8766:,.2f}", f"{p.core_hours(MILLION):,.0f}", f"{read:,.0f}, {written:,.0f}",
               f"{moved:,.1f}"]  # fmt: skip
        if priced:
            money = p.money(MILLION, prices)
            row.append("" if money is None else f"{money:,.2f}")
        rows.append(row)
    yield from table([*heads, "price a million"] if priced else heads, rows)


def _processes(rates: dict[str, Any], machine: Machine) -> Iterator[str]:
    yield f"Images a second on {machine.name}, labels and overlay, bfloat16, by the cores that each process has:"
    yield ""
    counts = [n for n in (1, 2, 4, 8, 16) if n <= machine.cores]
    rows = []
    for photo in rates["photos"]:
        load = cpu_workload(rates, photo, "bfloat16", "labels and overlay")
        rows.append([photo, *(f"{1 / plan(load, machine, n).seconds:.2f}" for n in counts)])
    yield from table(["photo", *(str(n) for n in counts)], rows)
    serial = cpu_workload(rates, "web", "bfloat16", "labels").stages[2].serial
    yield ""
    yield f"What stays on one thread does not get faster: all stages but encoding, and {serial:.1%} of encoding"
    yield "by Amdahl's law, from its times on one thread and on all here. Several small processes waste only memory."


def _feeding(rates: dict[str, Any], estimate: dict[str, Any], assumed: Assumed) -> Iterator[str]:
    yield "Cores, in processes of two, that keep the GPU busy; and the share of the time in which it is with fewer:"
    yield ""
    rows = []
    for photo in rates["photos"]:
        for outputs in OUTPUTS:
            load, slow = (
                gpu_workload(rates, estimate, photo, outputs, link=assumed.link, slower=factor) for factor in (1, 2)
            )
            shares = []
            for cores in _CORES_BESIDE_GPU:
                host = Machine("host", cores, assumed.memory, assumed.storage, gpus=1)
                found = plan(load, host, 2)
                shares.append(
                    f"{found.busy('GPU'):.0%}" + ("" if found.bottleneck == "cores" else f" ({found.bottleneck})")
                )
            rows.append([photo, outputs, f"{1e3 * load.gpu_seconds:.2f}", str(load.cores_to_feed(2)),
                         str(slow.cores_to_feed(2)), *shares])  # fmt: skip
    heads = ["photo", "written", "GPU ms an image", "cores to feed it", "at half its predicted speed"]
    yield from table([*heads, *(f"busy with {n} cores" for n in _CORES_BESIDE_GPU)], rows)
    yield ""
    yield "In brackets the bottleneck, where it is not the cores."
