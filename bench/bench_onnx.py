"""Exported image encoders of ViT-B/16 with random weights under ONNX Runtime, against the engine and a plain export."""

import copy
import functools
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import open_clip
import pytest
import torch
from gem_fast.bench.bench_forward import distance, open_clip_visual
from gem_fast.bench.eager import _positions, eager_gem
from gem_fast.bench.memory import peak_growth
from gem_fast.export.builder import GraphBuilder
from gem_fast.export.checking import sample_images
from gem_fast.export.comparison import relative_error
from gem_fast.export.image_encoder import write_image_encoder
from gem_fast.export.layers import Layers
from gem_fast.export.plain import plain_torch
from gem_fast.export.verdict import MARGIN
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from gem_fast.options import GemOptions
from gem_fast.packing import pack_vision, vision_config
from gem_fast.preprocess import to_pixels
from gem_fast.vision import GemVisionTransformer

MODEL = "ViT-B-16"
GRAPHS: dict[str, dict[str, Any]] = {
    "ort": {"attention": "ort"},
    "onnx": {"attention": "onnx", "opset": 23},
    "portable": {"attention": "portable"},
    "fp16": {"attention": "ort", "dtype": "fp16"},
    "int8": {"attention": "ort", "quantize": "int8"},
}


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Where this process's graphs lie until it ends."""
    return tempfile.TemporaryDirectory(prefix="gem_fast_bench.")


@functools.cache
def engine(backend: str | None = None) -> GemVisionTransformer:
    config = vision_config(open_clip.get_model_config(MODEL))
    return pack_vision(open_clip_visual().state_dict(), config, GemOptions(backend=backend))


@functools.cache
def graph_file(name: str, side: int) -> Path:
    """The image encoder written with the options of that name."""
    options: dict[str, Any] = {"opset": 18, "dtype": "fp32", "quantize": None, **GRAPHS[name]}
    graph = GraphBuilder(options.pop("opset"))
    write_image_encoder(Layers(graph, **options), engine(), (side, side), original=False)
    path = Path(folder().name, f"{name}_{side}.onnx")
    path.write_bytes(graph.model("image_encoder", {}).SerializeToString())
    return path


class Eager(nn.Module):
    """The eager model with the position embedding of one grid, since antialiased resampling does not export."""

    def __init__(self, side: int, both: bool = False) -> None:
        super().__init__()
        self.both = both
        self.visual = copy.deepcopy(open_clip_visual())
        grid = side // self.visual.patch_size[0]
        self.visual.positional_embedding = nn.Parameter(_positions(self.visual, grid, grid), requires_grad=False)
        self.visual.grid_size = (grid, grid)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        gem, original = eager_gem(self.visual, pixels)
        return (gem[:, 1:], original) if self.both else gem[:, 1:]


@functools.cache
def plain_export(batch: int, side: int, both: bool = False) -> Path:
    """The eager model as `torch.onnx.export` writes it; unless `both`, what only the other path needs falls away."""
    path = Path(folder().name, f"eager_{batch}_{side}_{both}.onnx")
    pixels = torch.zeros(batch, 3, side, side)
    torch.onnx.export(
        Eager(side, both).eval(), (pixels,), str(path), input_names=["pixels"], external_data=False, verbose=False
    )
    return path


def open_graph(path: Path) -> Callable[[Tensor], Tensor]:
    """Pixels to patch features `[B, h*w, E]` by the graph, on as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> Tensor:
        features = torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])
        return features.view(len(pixels), -1, features.shape[-1])

    return run


@pytest.mark.parametrize(("batch", "rounds"), [(1, 5), (4, 3)], ids=["1x448", "4x448"])
@torch.inference_mode()
def test_latency(in_turns: Callable[..., None], batch: int, rounds: int) -> None:
    """The best graph against the other attentions, the engine, and a plain export of the eager model, all in fp32."""
    pixels = torch.randn(batch, 3, 448, 448, generator=torch.Generator().manual_seed(0))
    graphs = {name: open_graph(graph_file(name, 448)) for name in ("ort", "onnx", "portable")}
    graphs["plain export of eager"] = open_graph(plain_export(batch, 448))
    truth = engine()(pixels).patches.flatten(1, 2)
    for name, run in graphs.items():
        assert distance(run(pixels), truth) <= 2e-6, name
    best = graphs.pop("ort")
    rivals: dict[str, Callable[[], Any]] = {name: functools.partial(run, pixels) for name, run in graphs.items()}
    rivals["engine"] = lambda: engine()(pixels)
    rivals["engine on sdpa"] = lambda: engine("sdpa")(pixels)
    in_turns(lambda: best(pixels), rivals, rounds=rounds)


@pytest.mark.parametrize("kind", ["int8", "fp16"])
@torch.inference_mode()
def test_types(in_turns: Callable[..., None], kind: str) -> None:
    """Other types against fp32; `onnx_agreement` has their errors."""
    pixels = to_pixels(sample_images(1)[0], (448, 448), OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)[None]
    best, other = open_graph(graph_file("ort", 448)), open_graph(graph_file(kind, 448))
    truth, plain = engine()(pixels).patches.flatten(1, 2), plain_torch(engine(), kind)(pixels).patches.flatten(1, 2)
    assert relative_error(other(pixels), truth) <= MARGIN * relative_error(plain, truth)
    in_turns(lambda: other(pixels), {"fp32": lambda: best(pixels)}, rounds=5)


@pytest.mark.parametrize("provider", ["ort", "onnx", "portable", "plain export of eager"])
@pytest.mark.parametrize(("batch", "side"), [(4, 448), (1, 1024)], ids=["4x448", "1x1024"])
def test_peak_memory(benchmark: Any, batch: int, side: int, provider: str) -> None:
    """Peak resident memory above the loaded session's in fp32, in a process of its own."""
    path = plain_export(batch, side) if provider not in GRAPHS else graph_file(provider, side)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        grown = benchmark.pedantic(lambda: pool.apply(memory_growth, (path, batch, side)), rounds=1)
    benchmark.extra_info["peak MB above load"] = round(grown)
    print(f"\n{provider}: {grown:.0f} MB above load")


def memory_growth(path: Path, batch: int, side: int) -> float:
    """MB that one run adds to the process's peak."""
    run = open_graph(path)
    pixels = torch.zeros(batch, 3, side, side)
    return peak_growth(lambda: run(pixels))
