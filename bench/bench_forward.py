"""The forward of ViT-B/16 with random weights against the eager way, in turns in one run."""

import copy
import functools
import multiprocessing
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from gem_fast.bench.eager import eager_gem
from gem_fast.bench.memory import peak_growth
from torch import Tensor

from gem_fast.options import GemOptions
from gem_fast.packing import pack_vision, vision_config

MODEL = "ViT-B-16"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@functools.cache
def open_clip_visual() -> Any:
    torch.manual_seed(0)
    config = open_clip.get_model_config(MODEL)
    return open_clip.CLIP(**config).visual.eval().requires_grad_(False)


@functools.cache
def providers(dtype: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Patch features [B, h*w, E] the eager way, by the engine, and by the engine on the sdpa backend, in one dtype."""
    visual = copy.deepcopy(open_clip_visual()).to(DTYPES[dtype])
    state, config = open_clip_visual().state_dict(), vision_config(open_clip.get_model_config(MODEL))
    engine = pack_vision(state, config, GemOptions()).to(DTYPES[dtype])
    on_sdpa = pack_vision(state, config, GemOptions(backend="sdpa")).to(DTYPES[dtype])
    return {
        "eager": lambda pixels: eager_gem(visual, pixels)[0][:, 1:],
        "engine": lambda pixels: engine(pixels).patches.flatten(1, 2),
        "engine on sdpa": lambda pixels: on_sdpa(pixels).patches.flatten(1, 2),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "size", "rounds"), [(1, 448, 5), (4, 448, 3), (1, 1024, 1)], ids=["1x448", "4x448", "1x1024"]
)
@torch.inference_mode()
def test_forward(in_turns: Callable[..., None], dtype: str, batch: int, size: int, rounds: int) -> None:
    """The engine against itself on sdpa, eager in float32, which the authors' package is, and eager in its dtype."""
    pixels = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    engine, eager = providers(dtype)["engine"], providers(dtype)["eager"]
    if size < 1024:
        truth = providers("fp32")["eager"](pixels)
        assert distance(engine(pixels), truth) <= max(2 * distance(eager(pixels), truth), 2e-6)
    rivals = {
        "engine on sdpa": lambda: providers(dtype)["engine on sdpa"](pixels),
        "eager fp32": lambda: providers("fp32")["eager"](pixels),
    }
    if dtype != "fp32" and size < 1024:
        rivals[f"eager {dtype}"] = lambda: eager(pixels)
    in_turns(lambda: engine(pixels), rivals, rounds=rounds)


@pytest.mark.parametrize("provider", ["eager", "engine"])
def test_peak_memory(benchmark: Any, provider: str) -> None:
    """Peak resident memory above the weights at 1024×1024 in float32, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        grown = benchmark.pedantic(lambda: pool.apply(memory_growth, (provider, 1024)), rounds=1)
    benchmark.extra_info["peak MB above the weights"] = round(grown)
    print(f"\n{provider}: {grown:.0f} MB above the weights")


@torch.inference_mode()
def memory_growth(provider: str, size: int) -> float:
    """MB that one forward adds to the process's peak."""
    forward = providers("fp32")[provider]
    forward(torch.zeros(1, 3, 64, 64))
    return peak_growth(lambda: forward(torch.zeros(1, 3, size, size)))


def distance(result: Tensor, truth: Tensor) -> float:
    return ((result.double() - truth.double()).norm() / truth.double().norm()).item()
