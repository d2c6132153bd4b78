"""Exported image encoders of ViT-B/16 with random weights under ONNX Runtime, against the engine and a plain export."""

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import open_clip
import pytest
import torch
from gem_fast.bench.memory import peak_growth
from gem_fast.bench.onnx_provider import write_graph
from gem_fast.bench.turns import Work
from gem_fast.export.checking import sample_images
from gem_fast.export.comparison import relative_error
from gem_fast.export.export_options import ExportOptions
from gem_fast.export.plain import plain_torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from gem_fast.options import GemOptions
from gem_fast.preprocess import to_pixels
from gem_fast.runtime.agreement import MARGIN
from gem_fast.runtime.runtime_options import RuntimeOptions
from gem_fast.towers.eager import eager_gem, positions
from gem_fast.towers.packing import pack_vision, vision_config
from gem_fast.towers.vit import GemVisionTransformer

MODEL = "ViT-B-16"
GRAPHS: dict[str, dict[str, Any]] = {
    "ort": {"attention": "ort"},
    "onnx": {"attention": "onnx"},
    "portable": {"attention": "portable"},
    "float16": {"attention": "ort", "dtype": "float16"},
    "int8": {"attention": "ort", "quantize": "int8"},
}


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Where this process's graphs lie until it ends."""
    return tempfile.TemporaryDirectory(prefix="gem_fast_bench.")


@functools.cache
def open_clip_visual() -> Any:
    torch.manual_seed(0)
    return open_clip.CLIP(**open_clip.get_model_config(MODEL)).visual.eval().requires_grad_(False)


@functools.cache
def engine(backend: str | None = None) -> GemVisionTransformer:
    config = vision_config(open_clip.get_model_config(MODEL))
    return pack_vision(open_clip_visual().state_dict(), config, GemOptions(), backend)


@functools.cache
def graph_file(name: str, side: int) -> Path:
    """The image encoder written with the options of that name."""
    path = Path(folder().name, f"{name}_{side}.onnx")
    write_graph(engine(), path, ExportOptions(**GRAPHS[name]), (side, side))
    return path


class Eager(nn.Module):
    """The eager model with the position embedding of one grid, since antialiased resampling does not export."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.visual = copy.deepcopy(open_clip_visual())
        grid = side // self.visual.patch_size[0]
        self.visual.positional_embedding = nn.Parameter(positions(self.visual, grid, grid), requires_grad=False)
        self.visual.grid_size = (grid, grid)

    def forward(self, pixels: Tensor) -> Tensor:
        return eager_gem(self.visual, pixels)[0][:, 1:]


@functools.cache
def plain_export(batch: int, side: int) -> Path:
    """The eager model as `torch.onnx.export` writes it, without what only the other path needs."""
    path = Path(folder().name, f"eager_{batch}_{side}.onnx")
    pixels = torch.zeros(batch, 3, side, side)
    torch.onnx.export(
        Eager(side).eval(), (pixels,), str(path), input_names=["pixels"], external_data=False, verbose=False
    )
    return path


def open_graph(path: Path) -> Callable[[Tensor], Tensor]:
    """Pixels to patch features `[B, h*w, E]` by the graph, on as many threads as torch has."""
    options = RuntimeOptions(threads=torch.get_num_threads())
    session = onnxruntime.InferenceSession(str(path), options.session_options(), providers=options.providers())

    def run(pixels: Tensor) -> Tensor:
        features = torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])
        return features.view(len(pixels), -1, features.shape[-1])

    return run


@pytest.mark.parametrize(
    ("batch", "side", "rounds"),
    [
        pytest.param(1, 448, 5, id="1x448"),
        pytest.param(4, 448, 3, id="4x448", marks=pytest.mark.full),
        pytest.param(1, 1024, 2, id="1x1024", marks=pytest.mark.full),
    ],
)
@torch.inference_mode()
def test_latency(in_turns: Callable[..., Any], batch: int, side: int, rounds: int) -> None:
    """The best graph against the other attentions, the engine, and a plain export of eager code, in float32."""
    pixels = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    paths = {"ort": graph_file("ort", side), "plain export of eager": plain_export(batch, side)}
    paths |= {name: graph_file(name, side) for name in ("portable", "onnx")}
    graphs = {name: open_graph(path) for name, path in paths.items()}
    truth = engine()(pixels).patches.flatten(1, 2)
    added = {}
    for name, run in graphs.items():
        added[name] = peak_growth(lambda: run(pixels))  # noqa: B023 - of a first run, called at once
        assert relative_error(run(pixels), truth) <= 2e-6, name
    providers: dict[str, Callable[[], Any]] = {name: functools.partial(run, pixels) for name, run in graphs.items()}
    providers["engine"] = lambda: engine()(pixels)
    providers["engine on sdpa"] = lambda: engine("sdpa")(pixels)
    in_turns(providers, rounds=rounds, work=Work(images=batch), added_mb=added)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["int8", "float16"])
@torch.inference_mode()
def test_types(in_turns: Callable[..., Any], kind: str) -> None:
    """Other types against float32."""
    pixels = to_pixels(sample_images(1)[0], (448, 448), OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)[None]
    best, other = open_graph(graph_file("ort", 448)), open_graph(graph_file(kind, 448))
    truth, plain = engine()(pixels).patches.flatten(1, 2), plain_torch(engine(), kind)(pixels).patches.flatten(1, 2)
    assert relative_error(other(pixels), truth) <= MARGIN * relative_error(plain, truth)
    in_turns(
        {kind: lambda: other(pixels), "float32": lambda: best(pixels)},
        rounds=5,
        work=Work(images=1),
        added_mb={kind: None, "float32": None},  # ONNX Runtime keeps its memory from the first call on
    )
