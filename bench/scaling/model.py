"""The model: stages of an image, machines, and which resource of a machine is spent first.

Throughput follows the bottleneck law: with independent processes enough, the resource that an image occupies longest
sets the pace. Inside one process what runs on a single thread does not get faster with cores (Amdahl's law).
"""

import math
from dataclasses import dataclass


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
class Prices:
    """Of an hour, in any currency; None where nobody gave one."""

    core: float | None = None
    gpu: float | None = None


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

    def core_hours(self, images: float) -> float:
        """Of all cores of the machine, which are held whether they work or wait."""
        return self.hours(images) * self.machine.cores

    def gpu_hours(self, images: float) -> float:
        return self.hours(images) * self.machine.gpus

    def terabytes(self, images: float) -> tuple[float, float]:
        """Read and written."""
        return images * self.workload.read / 1e12, images * self.workload.written / 1e12

    def money(self, images: float, prices: Prices) -> float | None:
        """None unless each resource that the machine has also has a price."""
        held = [(self.core_hours(images), prices.core)]
        if self.machine.gpus:
            held.append((self.gpu_hours(images), prices.gpu))
        if any(price is None for _, price in held):
            return None
        return sum(hours * price for hours, price in held if price is not None)


def plan(workload: Workload, machine: Machine, threads: int) -> Plan:
    """Spread a workload over a machine's processes.

    Raises:
        ValueError: `threads` is not in 1 to the machine's cores, or the workload needs a GPU that the machine lacks.
    """
    if not 1 <= threads <= machine.cores:
        raise ValueError(f"{machine.name} has {machine.cores} cores; a process can't have {threads}")
    if bool(workload.gpu_seconds) != bool(machine.gpus):
        raise ValueError(f"{workload.name} and {machine.name}: a workload has GPU seconds where a machine has a GPU")
    processes = machine.cores // threads
    demands = {
        "cores": workload.process_seconds(threads) / processes,
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
