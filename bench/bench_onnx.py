"""Our graph of ViT-B/16 beside the eager model as `torch.onnx.export` writes it, both on ONNX Runtime."""

import copy
import functools
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
from gem_fast.export.comparison import relative_error
from gem_fast.export.export_options import ExportOptions
from torch import Tensor, nn

from gem_fast.options import GemOptions
from gem_fast.runtime.runtime_options import RuntimeOptions
from gem_fast.towers.eager import eager_gem, positions
from gem_fast.towers.packing import pack_vision, vision_config

MODEL = "ViT-B-16"


class Eager(nn.Module):
    """The eager model with the position embedding of one grid, since antialiased resampling does not export."""

    def __init__(self, visual: Any, side: int) -> None:
        super().__init__()
        self.visual = copy.deepcopy(visual)
        grid = side // self.visual.patch_size[0]
        self.visual.positional_embedding = nn.Parameter(positions(self.visual, grid, grid), requires_grad=False)
        self.visual.grid_size = (grid, grid)

    def forward(self, pixels: Tensor) -> Tensor:
        return eager_gem(self.visual, pixels)[0][:, 1:]


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
def test_against_a_plain_export(
    in_turns: Callable[..., Any], tmp_path: Path, batch: int, side: int, rounds: int
) -> None:
    torch.manual_seed(0)
    visual: Any = open_clip.CLIP(**open_clip.get_model_config(MODEL)).visual.eval().requires_grad_(False)
    engine = pack_vision(visual.state_dict(), vision_config(open_clip.get_model_config(MODEL)), GemOptions())
    pixels = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    paths = {"ort": tmp_path / "ort.onnx", "plain export of eager": tmp_path / "eager.onnx"}
    write_graph(engine, paths["ort"], ExportOptions(attention="ort"), (side, side))
    plain = Eager(visual, side).eval(), (pixels,), str(paths["plain export of eager"])
    torch.onnx.export(*plain, input_names=["pixels"], external_data=False, verbose=False)
    truth, added = engine(pixels).patches.flatten(1, 2), {}
    providers: dict[str, Callable[[], Any]] = {}
    for name, path in paths.items():
        providers[name] = functools.partial(open_graph(path), pixels)
        added[name] = peak_growth(providers[name])
        assert relative_error(providers[name](), truth) <= 2e-6, name
    in_turns(providers, rounds=rounds, work=Work(images=batch), added_mb=added)
