"""The ways to compute GEM's patch features that benchmarks hold side by side. Needs no torch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import memory

KINDS = ("engine", "eager", "compiled", "authors", "onnx")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Provider:
    """One way to compute the forward.

    Attributes:
        name: what tables call it.
        kind: `engine`, `eager`, `compiled` (eager under torch.compile), `authors`, or `onnx` (our exported graph).
        dtype: float32, bfloat16 or float16.
        backend: of the engine's attention, None for its own choice; of a graph, the export's `attention`.
        finish_original: the engine also computes what only the unchanged path needs, as eager code does.
    """

    name: str
    kind: str
    dtype: str = "float32"
    backend: str | None = None
    finish_original: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of provider {self.kind!r}; known are {', '.join(KINDS)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    @property
    def key(self) -> str:
        return f"{self.name} {self.dtype}"


@dataclass(frozen=True)
class Subject:
    """The model that all providers of a run compute: open_clip's config, GEM's options and a file of weights."""

    name: str
    model_cfg: dict[str, Any]
    options: dict[str, Any]
    weights: str  # safetensors of the vision tower, open_clip's names without `visual.`

    @property
    def patch_size(self) -> int:
        return int(self.model_cfg["vision_cfg"]["patch_size"])


class Loaded(ABC):
    """A provider in memory, in a process of its own; its memory is the process's resident memory in MB.

    Attributes:
        threads: that it computes with on a CPU.
    """

    threads: int

    @abstractmethod
    def take(self, pixels: np.ndarray) -> None:
        """Hold the pixels `[B, 3, H, W]` float32 of the forwards to come, and give back what others left in memory."""

    @abstractmethod
    def run(self) -> None:
        """One forward; it is finished when this returns."""

    @abstractmethod
    def features(self) -> np.ndarray:
        """L2-normalised patch features `[B, h*w, E]` float32 of the last forward."""

    def memory_now(self) -> float | None:
        return memory.resident_mb()

    def start_peak(self) -> None:
        memory.reset_peak()

    def peak(self) -> float | None:
        return memory.peak_mb()


def load(provider: Provider, subject: Subject, device: str, threads: int | None) -> Loaded:
    """The provider with its weights in memory; None leaves the threads to its library."""
    if provider.kind == "onnx":
        from .onnx_provider import OnnxForward

        return OnnxForward(provider, subject, device, threads)
    from .torch_provider import TorchForward, build

    return TorchForward(lambda: build(provider, subject, device), device, threads)
