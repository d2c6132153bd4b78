"""Our ONNX graph as a provider: written by the process that measures, and run by the runtime without torch."""

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from . import memory
from .providers import Loaded, Provider, Subject

if TYPE_CHECKING:
    from gem_fast.export.export_options import ExportOptions
    from onnxruntime import OrtValue

    from gem_fast.towers.vit import GemVisionTransformer

_WRITING = Lock()
GRAPH_DTYPES = ("float32", "float16")  # those that ONNX Runtime's CPU kernels compute


def graph_path(provider: Provider, subject: Subject) -> Path:
    """Where the provider's graph lies, beside the subject's weights."""
    return Path(subject.weights).with_suffix(f".{provider.backend}.{provider.graph_dtype}.onnx")


def export_graph(provider: Provider, subject: Subject) -> None:
    """Write the provider's graph unless it is there; one at a time, since providers may share one."""
    with _WRITING:
        if not graph_path(provider, subject).exists():
            _export(provider, subject)


def _export(provider: Provider, subject: Subject) -> None:
    from gem_fast.export.export_options import ExportOptions
    from gem_fast.export.onnx_export import require_packages

    from gem_fast.options import GemOptions
    from gem_fast.towers.packing import pack_vision
    from gem_fast.towers.served import vision_config

    from .torch_provider import load_weights

    require_packages()
    kind = "quantize" if provider.dtype == "int8" else "dtype"
    options = ExportOptions(attention=str(provider.backend), **{kind: provider.graph_dtype})  # type: ignore[arg-type]
    vision = pack_vision(load_weights(subject), vision_config(subject.model_cfg), GemOptions(**subject.options))
    write_graph(vision, graph_path(provider, subject), options)


def write_graph(vision: "GemVisionTransformer", path: Path, options: "ExportOptions") -> None:
    """The image encoder for every multiple of the patch; whole or not at all."""
    from gem_fast.export.attention import make_layers
    from gem_fast.export.builder import GraphBuilder, Weights
    from gem_fast.export.image_encoder import write_image_encoder
    from gem_fast.export.onnx_export import weights_beside

    from gem_fast.writing import write_whole

    graph = GraphBuilder(options.chosen_opset, Weights(weights_beside(path.with_suffix(".weights"), vision)))
    layers = make_layers(graph, options.attention, options.dtype, options.quantize)
    write_image_encoder(layers, vision, None, original=False)
    write_whole(path, graph.model("image_encoder", {}).SerializeToString())


class OnnxForward(Loaded):
    """The graph on ONNX Runtime. On a GPU its memory is not told."""

    def __init__(self, provider: Provider, subject: Subject, device: str, threads: int | None) -> None:
        from gem_fast.runtime.runtime_options import RuntimeOptions

        kind, _, index = device.partition(":")
        self.on_gpu = kind != "cpu"
        self.threads = threads or 0
        self.options = RuntimeOptions(provider=kind, device_id=int(index or 0), threads=threads)
        self.path = graph_path(provider, subject)
        self.embed_dim = int(subject.model_cfg["embed_dim"])
        self.results: list[OrtValue] = []
        self.open()

    def open(self) -> None:
        """A session without what an earlier one left."""
        from gem_fast.runtime.graph import Graph
        from gem_fast.runtime.interface import image_encoder

        inputs, outputs = image_encoder(self.embed_dim, 1, None, original=False, with_preprocess=False)
        self.graph = Graph(self.path, self.options, inputs, outputs)

    def take(self, pixels: np.ndarray) -> None:
        del self.graph  # a session keeps what its largest forward needed
        self.pixels = pixels
        self.results.clear()
        memory.release_unused()
        self.open()
        memory.release_unused()

    def run(self) -> None:
        self.results.clear()  # or two results would lie side by side
        self.results = self.graph.run({"pixels": self.pixels}, "patch_features")

    def features(self) -> np.ndarray:
        found: np.ndarray = self.results[0].numpy()
        return found.reshape(len(found), -1, found.shape[-1])

    def memory_now(self) -> float | None:
        return None if self.on_gpu else super().memory_now()

    def peak(self) -> float | None:
        return None if self.on_gpu else super().peak()
