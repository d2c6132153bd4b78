"""What a million images cost, on paper: `python -m gem_fast.bench.scaling [folder]`.

Writes `scaling.md` from the stages of workloads in `workloads.json`. Throughput follows the bottleneck law: with
independent processes enough, the resource that an image occupies longest sets the pace. Inside one process what runs
on a single thread does not get faster with cores (Amdahl's law).
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gem_fast.writing import write_whole

from .tables import markdown_table

STORAGE, MEMORY = 500e6, 80e9  # assumed, bytes a second: of storage, and of a larger machine's memory


@dataclass(frozen=True)
class Stage:
    """Work on an image by the CPU.

    Attributes:
        core_seconds: of one core, while all cores are busy.
        serial: share that stays on one thread however many cores a process has.
        ahead: done by the reading thread, beside the other stages.
    """

    name: str
    core_seconds: float
    serial: float = 1.0
    ahead: bool = False

    def seconds(self, cores: int) -> float:
        """Amdahl's law."""
        return self.core_seconds * (self.serial + (1 - self.serial) / cores)


@dataclass(frozen=True)
class Workload:
    """What every image asks for.

    Attributes:
        read, written: bytes from and to storage.
        traffic: bytes of the machine's memory that encoding moves at the least.
        gpu_seconds: of a GPU, its transfers included; 0 where the CPU encodes.
    """

    name: str
    stages: tuple[Stage, ...]
    read: float
    written: float
    traffic: float = 0.0
    gpu_seconds: float = 0.0

    @property
    def core_seconds(self) -> float:
        return sum(stage.core_seconds for stage in self.stages)

    def process_seconds(self, cores: int) -> float:
        """Of an image in one process with `cores`: reading runs beside the rest, a core does one thing at a time."""
        ahead = sum(stage.core_seconds for stage in self.stages if stage.ahead)
        rest = sum(stage.seconds(cores) for stage in self.stages if not stage.ahead) + self.gpu_seconds
        return max(ahead, rest, self.core_seconds / cores)

    def cores_to_feed(self, threads: int) -> int:
        """Cores, in processes of `threads` each, that keep one GPU busy; 0 without a GPU."""
        if not self.gpu_seconds:
            return 0
        return threads * math.ceil(self.process_seconds(threads) / self.gpu_seconds - 1e-9)


@dataclass(frozen=True)
class Machine:
    """What images are worked on by.

    Attributes:
        memory: bytes of memory traffic a second, of all cores together.
        storage: bytes a second, read and written together.
        gpus: that share the images.
    """

    name: str
    cores: int
    memory: float
    storage: float
    gpus: int = 0

    def __post_init__(self) -> None:
        if self.cores < 1 or self.gpus < 0 or min(self.memory, self.storage) <= 0:
            raise ValueError(f"{self.name}: a machine has a core, and positive rates, got {self}")


@dataclass(frozen=True)
class Plan:
    """A workload on a machine, in processes of `threads` cores each.

    Attributes:
        demands: seconds that an image occupies each resource as a whole; the largest is the bottleneck.
    """

    workload: Workload
    machine: Machine
    threads: int
    demands: dict[str, float]

    @property
    def seconds(self) -> float:
        """An image."""
        return max(self.demands.values())

    @property
    def bottleneck(self) -> str:
        return max(self.demands, key=lambda name: self.demands[name])

    def busy(self, resource: str) -> float:
        """Share of the time in which a resource works."""
        return self.demands[resource] / self.seconds

    def hours(self, images: float) -> float:
        return images * self.seconds / 3600


def plan(workload: Workload, machine: Machine, threads: int) -> Plan:
    """Spread a workload over a machine's processes.

    Raises:
        ValueError: `threads` is not in 1 to the machine's cores, or the workload needs a GPU that the machine lacks.
    """
    if not 1 <= threads <= machine.cores:
        raise ValueError(f"{machine.name} has {machine.cores} cores; a process can't have {threads}")
    if bool(workload.gpu_seconds) != bool(machine.gpus):
        raise ValueError(f"{workload.name} and {machine.name}: a workload has GPU seconds where a machine has a GPU")
    demands = {
        "cores": workload.process_seconds(threads) / (machine.cores // threads),
        "memory": workload.traffic / machine.memory,
        "storage": (workload.read + workload.written) / machine.storage,
    }
    if machine.gpus:
        demands["GPU"] = workload.gpu_seconds / machine.gpus
    return Plan(workload, machine, threads, demands)


def serial_share(alone: float, together: float, cores: int) -> float:
    """The serial share by Amdahl's law of what takes `alone` seconds on one core and `together` on `cores`; in 0..1."""
    if cores == 1:
        return 1.0
    return min(1.0, max(0.0, (together / alone - 1 / cores) / (1 - 1 / cores)))


def read_workloads(path: Path) -> tuple[dict[str, Any], list[Workload]]:
    """A file's own words with the machine that it was measured on, and its workloads; ValueError names a bad one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        loads = [
            Workload(**{**each, "stages": tuple(Stage(**stage) for stage in each["stages"])})
            for each in record.pop("workloads")
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: no file of workloads ({error})") from error
    return record, loads


INTRO = """# A million images, on paper

Written by `make scaling` (`bench/scaling.py`) from `workloads.json`, measured on {machine}.

{about}

**Everything about more cores is predicted.** Images are shared out among processes of {cores} cores, each a
`segment_files`: a thread decodes ahead, and all but encoding stays on one thread. A core of a larger machine is as
fast as one here. Assumed are {memory:g} GB/s of memory there and {storage:g} MB/s of storage; start, the words'
encoding, heat maps and failures are left out. *Core time* tells what takes most of it, *feeding* how many cores keep
the GPU busy.
"""


def markdown(record: dict[str, Any], loads: list[Workload]) -> str:
    """What the images take on the machine of the measurement and on one of 16 cores, or beside a GPU."""
    cores = record["cores"]
    here = Machine(f"{cores} cores", cores, record["memory"], STORAGE)
    large, host = Machine("16 cores", 16, MEMORY, STORAGE), Machine("16 cores + GPU", 16, MEMORY, STORAGE, gpus=1)
    plans = [
        plan(load, machine, cores) for load in loads for machine in ((host,) if load.gpu_seconds else (here, large))
    ]
    about = "\n".join(record["about"])
    intro = INTRO.format(**record | {"about": about, "memory": MEMORY / 1e9, "storage": STORAGE / 1e6})
    heads = ["workload", "machine", "images/s", "bottleneck", "hours a million", "core time", "feeding"]
    return "\n".join([intro, *markdown_table(heads, _rows(plans)), ""])


def _rows(plans: list[Plan]) -> Iterator[list[str]]:
    for p in plans:
        load = p.workload
        ordered = sorted(load.stages, key=lambda stage: -stage.core_seconds)[:2]
        shares = ", ".join(f"{stage.core_seconds / load.core_seconds:.0%} {stage.name}" for stage in ordered)
        feeding = str(load.cores_to_feed(p.threads)) if load.gpu_seconds else ""
        speed, hours = f"{1 / p.seconds:,.2f}", f"{p.hours(1e6):,.1f}"
        yield [load.name, p.machine.name, speed, p.bottleneck, hours, shares, feeding]


def main(folder: str = "bench/reports") -> None:
    """Write the page; a file that is missing or damaged ends it with its name."""
    try:
        page = markdown(*read_workloads(Path(folder) / "workloads.json"))
    except ValueError as error:
        sys.exit(f"scaling: {error}")
    write_whole(Path(folder) / "scaling.md", page.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
