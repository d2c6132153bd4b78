"""Cases of the forward by CUDA graphs against the same without: two shapes in turns, two threads, a second stream."""

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from gem_fast.bench.subjects import random_pixels
from gem_fast.bench.torch_provider import eager_forward, load_weights
from gem_fast.kernels.attention.triton.tile_trials import DTYPES
from torch import Tensor

from gem_fast.graphs import GraphedForward
from gem_fast.options import GemOptions
from gem_fast.towers.packing import pack_vision
from gem_fast.towers.served import vision_config

from .cases import Case, Outputs, Problem
from .forward import subject_of

SHAPES = ((1, 448), (3, 224))  # images, side


def graph_cases(kinds: tuple[str, ...]) -> Iterator[Case]:
    for kind in kinds:
        build = functools.partial(graphs_problem, kind)
        yield Case("graphs", "ViT-B-16, 1 × 448² and 3 × 224² in turns", kind, build, timed=False)


def graphs_problem(
    kind: str, device: torch.device, model: str = "ViT-B-16", backend: str = "triton", recorder: Any = None
) -> Problem:
    """What replays give may be as far from float64 as what the same kernels give when they are launched one by one."""
    subject = subject_of(model)
    exact = eager_forward(subject, str(device), torch.float64)
    options, config = GemOptions(**subject.options), vision_config(subject.model_cfg)
    vision = pack_vision(load_weights(subject), config, options, backend).to(device, DTYPES[kind])
    graphed, images = GraphedForward(recorder), [torch.from_numpy(random_pixels(*shape)).to(device) for shape in SHAPES]

    def replayed(pixels: Tensor) -> Tensor:
        return graphed(vision, pixels).patches

    def aside(pixels: Tensor) -> Tensor:
        with torch.cuda.stream(torch.cuda.Stream(device) if device.type == "cuda" else None):
            return replayed(pixels).cpu().to(device)  # once it is there

    def each(forward: Callable[[Tensor], Tensor], using: Callable[..., Iterable[Tensor]] = map) -> Outputs:
        if device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # nor can it be captured: the host's time is to be seen
        found = list(using(forward, images * 3))[-len(SHAPES) :]
        return {str(shape): patches.flatten(1, -2) for shape, patches in zip(SHAPES, found, strict=True)}

    each(replayed)  # recorded here, and not while new memory is filled for a check
    launched, two = functools.partial(each, lambda pixels: vision(pixels).patches), ThreadPoolExecutor(2).map
    ways: dict[str, Any] = {"replayed": (replayed,), "second stream": (aside,), "two threads": (aside, two)}
    return Problem(
        ours={name: functools.partial(each, *way) for name, way in ways.items()},
        rivals={"launched": launched},
        truth=functools.partial(each, exact),
        plain=launched,
        otherwise=False,  # a graph in a graph
        outputs=lambda found: found,
    )
