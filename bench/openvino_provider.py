"""Our ONNX graph on OpenVINO, compiled for each shape, which is when it is fastest; in a process without torch."""

from typing import Any

import numpy as np

from gem_fast.errors import missing_extra

from . import memory
from .onnx_provider import graph_path
from .providers import Loaded, Provider, Subject

OPENVINO_DTYPES = {"float32": "f32", "bfloat16": "bf16"}  # by its own names; the graph is in float32


class OpenVinoForward(Loaded):
    """The graph on the CPU, with as many threads as the others."""

    def __init__(self, provider: Provider, subject: Subject, device: str, threads: int | None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise missing_extra("the provider openvino", "bench", error) from error
        if device != "cpu":
            raise ValueError(f"the provider openvino is for the CPU, not {device}")
        self.threads = threads or 0
        self.core, self.path = openvino.Core(), graph_path(provider, subject)
        self.settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": OPENVINO_DTYPES[provider.dtype],
        }

    def take(self, pixels: np.ndarray) -> None:
        self.request: Any = None
        memory.release_unused()
        graph = self.core.read_model(self.path)
        graph.reshape(pixels.shape)
        self.request = self.core.compile_model(graph, "CPU", self.settings).create_infer_request()
        self.pixels = pixels

    def run(self) -> None:
        self.request.infer({"pixels": self.pixels}, share_inputs=True)

    def features(self) -> np.ndarray:
        found: np.ndarray = self.request.get_tensor("patch_features").data
        return found.reshape(len(found), -1, found.shape[-1]).copy()
