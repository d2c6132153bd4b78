"""What can be chosen about ONNX Runtime: the provider, threads, memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from ..errors import ExportError
from .packages import two_runtimes

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
# The packages that bring what the package onnxruntime lacks.
_PACKAGES = {
    PROVIDERS["cuda"]: "onnxruntime-gpu",
    PROVIDERS["tensorrt"]: "onnxruntime-gpu",
    PROVIDERS["openvino"]: "onnxruntime-openvino",
    PROVIDERS["directml"]: "onnxruntime-directml",
}
# Of OpenVINO, by its own names.
_PRECISIONS = {"float32": "FP32", "float16": "FP16", "accuracy": "ACCURACY"}
_MOST_THREADS = 1 << 10  # ONNX Runtime starts all that are asked for, and those that wait spin
OPTIMIZATION = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


@dataclass(frozen=True)
class RuntimeOptions:
    """How ONNX Runtime runs the graphs.

    Attributes:
        provider: a name of `PROVIDERS`, or ONNX Runtime's own name of one. What it can't run goes to the CPU; what
            TensorRT can't run goes to CUDA first.
        precision: of OpenVINO, which would compute in bfloat16 on CPUs that have it: `"float32"`, `"float16"`, or
            `"accuracy"` for what the graph has. None for float32.
        device_id: which GPU.
        provider_options: more of the provider's options, as ONNX Runtime names them; they go before those set here.
        cache: folder in which TensorRT keeps its engines and timings between runs, by default none: building an
            engine takes minutes.
        max_batch: most images in one forward that TensorRT's engine is built for.
        threads: threads within an operator, OpenVINO's too; None for one a physical core.
        arena: keep freed memory for the next run. Without, memory falls back after each, and runs are slower.
        prepacking: keep weights in the layout of the matrix products too, for speed.
        optimization: graph optimisations, `"all"`, `"extended"`, `"basic"` or `"none"`.
    """

    provider: str = "cpu"
    device_id: int = 0
    provider_options: Mapping[str, Any] = field(default_factory=dict)
    cache: str | Path | None = None
    max_batch: int = 8
    precision: str | None = None
    threads: int | None = None
    arena: bool = True
    prepacking: bool = True
    optimization: str = "all"

    def __post_init__(self) -> None:
        if self.optimization not in OPTIMIZATION:
            raise ExportError(f"optimization must be one of {', '.join(OPTIMIZATION)}, got {self.optimization!r}")
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            right = f"from 1 to {_MOST_THREADS:,}, or None for one a physical core"
            raise ExportError(f"threads must be {right}, got {self.threads}")
        if self.precision is not None and self.provider_name != PROVIDERS["openvino"]:
            raise ExportError(f"precision is OpenVINO's, and the provider is {self.provider}: leave it out")
        if self.precision not in (None, *_PRECISIONS):
            raise ExportError(f"precision must be one of {', '.join(_PRECISIONS)}, got {self.precision!r}")
        if self.max_batch < 1:
            raise ExportError(f"max_batch must be 1 or more, got {self.max_batch}")
        if self.cache is not None and Path(self.cache).exists() and not Path(self.cache).is_dir():
            raise NotADirectoryError(f"the cache {self.cache} is a file; it must be a folder")
        if self.cache is not None:
            object.__setattr__(self, "cache", Path(self.cache).absolute())  # engines are built later
        available = onnxruntime.get_available_providers()
        if self.provider_name not in available:
            raise ExportError(self._missing(available))

    def _missing(self, available: Sequence[str]) -> str:
        """What to say of a provider that is not among those available."""
        known = {name: short for short, name in PROVIDERS.items()}
        package = _PACKAGES.get(self.provider_name)
        hints = [f"{self.provider} comes with the package {package}" if package else None, two_runtimes()]
        told = ", ".join(known.get(name, name) for name in available)
        return ". ".join(
            [f"provider {self.provider!r} is not in this onnxruntime; available here: {told}", *filter(None, hints)]
        )

    @property
    def provider_name(self) -> str:
        """ONNX Runtime's name of the provider."""
        return PROVIDERS.get(self.provider, self.provider)

    @property
    def on_nvidia(self) -> bool:
        return self.provider_name in (PROVIDERS["cuda"], PROVIDERS["tensorrt"])

    def session_options(self) -> onnxruntime.SessionOptions:
        """For each of the graphs."""
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = OPTIMIZATION[self.optimization]
        options.intra_op_num_threads = self.threads or 0
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = self.arena
        # From the second run of a shape on, a pattern takes one block for all of it beside what the first run left.
        options.enable_mem_pattern = False
        options.log_severity_level = 3  # errors: they are raised, and warnings speak of nodes that stay on the CPU
        if not self.prepacking:
            options.add_session_config_entry("session.disable_prepacking", "1")
        return options

    def providers(
        self, profile: Mapping[str, tuple[int | None, ...]] | None = None
    ) -> list[tuple[str, dict[str, Any]]]:
        """Providers of a session, the first to be asked first.

        Args:
            profile: shapes of the inputs with None for the batch, for a graph that TensorRT is to build an engine of;
                without, TensorRT is passed over.
        """
        cpu: tuple[str, dict[str, Any]] = (PROVIDERS["cpu"], {})
        own = dict(self.provider_options)
        if self.provider_name == PROVIDERS["openvino"]:
            return [(self.provider_name, self._openvino() | own), cpu]
        if not self.on_nvidia:
            return [cpu] if self.provider_name == cpu[0] else [(self.provider_name, own), cpu]
        # Products stay float32, as in the torch engine, and the search for a convolution is not run for each shape.
        precise: dict[str, Any] = {"device_id": self.device_id, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
        if self.provider_name == PROVIDERS["cuda"]:
            return [(PROVIDERS["cuda"], precise | own), cpu]
        cuda = (PROVIDERS["cuda"], precise)
        if profile is None:
            return [cuda, cpu]
        return [(PROVIDERS["tensorrt"], self._tensorrt(profile) | own), cuda, cpu]

    def _openvino(self) -> dict[str, Any]:
        chosen: dict[str, Any] = {"device_type": "CPU", "precision": _PRECISIONS[self.precision or "float32"]}
        return chosen if self.threads is None else {**chosen, "num_of_threads": self.threads}

    def _tensorrt(self, profile: Mapping[str, tuple[int | None, ...]]) -> dict[str, Any]:
        chosen: dict[str, Any] = {"device_id": self.device_id}
        if self.cache is not None:
            Path(self.cache).mkdir(parents=True, exist_ok=True)
            for kind in ("engine", "timing"):
                chosen |= {f"trt_{kind}_cache_enable": True, f"trt_{kind}_cache_path": str(self.cache)}
        if profile:
            for bound, batch in (("min", 1), ("opt", self.max_batch), ("max", self.max_batch)):
                shapes = (f"{name}:{'x'.join(str(d or batch) for d in shape)}" for name, shape in profile.items())
                chosen[f"trt_profile_{bound}_shapes"] = ",".join(shapes)
        return chosen
