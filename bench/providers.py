"""The ways to compute GEM's patch features that benchmarks hold side by side. Needs neither torch nor gem_fast."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import memory

KINDS = ("engine", "graph", "eager", "compiled", "authors", "onnx", "openvino", "checkout")
# Types, and the largest relative distance of their features from float32's: twice what eager code showed on ViT-B/16.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 3e-3}
ENGINE_TOLERANCE = {**TOLERANCE, "int8": 2e-2}  # with what the engine and graphs compute beside


@dataclass(frozen=True)
class Provider:
    """One way to compute the forward.

    Attributes:
        name: what tables call it.
        kind: `engine`, `graph` (the engine by CUDA graphs), `eager`, `compiled` (eager under torch.compile), `authors`,
            `onnx` (our exported graph on ONNX Runtime), `openvino` (the same on OpenVINO), or `checkout` (one side of
            the regression gate, which computes operations of the engine).
        dtype: float32, bfloat16 or float16; of the engine and a graph also int8, their linear layers'.
        backend: of the engine's attention, None for its own choice; of a graph, the export's `attention`.
        finish_original: the engine also computes what only the unchanged path needs, as eager code does.
        method: of the engine, by the names of `gem_fast.methods()`.
    """

    name: str
    kind: str
    dtype: str = "float32"
    backend: str | None = None
    finish_original: bool = False
    method: str = "gem"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of provider {self.kind!r}; known are {', '.join(KINDS)}")
        known = ENGINE_TOLERANCE if self.kind in ("engine", "onnx") else TOLERANCE
        if self.dtype not in known:
            raise ValueError(f"dtype must be one of {', '.join(known)}, got {self.dtype!r}")

    @property
    def graph_dtype(self) -> str | None:
        """Type of our exported graph, if it runs one; OpenVINO casts by itself."""
        return {"onnx": self.dtype, "openvino": "float32"}.get(self.kind)

    @property
    def key(self) -> str:
        return self.name if self.kind == "checkout" else f"{self.name} {self.dtype}"


@dataclass(frozen=True)
class Subject:
    """What all providers of a run compute: a model, or an operation of the gate, which has only a name.

    Attributes:
        model_cfg: open_clip's config.
        options: GEM's.
        weights: safetensors of the vision tower, open_clip's names without `visual.`.
    """

    name: str
    model_cfg: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    weights: str = ""

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
