"""Cases of LayerNorm with the norms of its tokens, and with the adaptive temperature."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from gem_fast.kernels.attention.triton.tile_trials import DTYPES
from gem_fast.kernels.layer_norm import layer_norm_and_temperature
from gem_fast.kernels.layer_norm.layer_norm import reference
from gem_fast.kernels.layer_norm.triton_layer_norm import triton_layer_norm
from torch import Tensor

from .cases import Case, Outputs, Problem
from .fences import fenced

SHAPES = {"ViT-B/16 448": (8, 785, 768), "ViT-L/14 224": (8, 257, 1024), "ViT-bigG/14 448": (2, 1025, 1664)}
EPS = 1e-5
_ENTRY = functools.partial(layer_norm_and_temperature, head_width=64)
WAYS: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {  # ours, torch's, what comes beside y
    "layer_norm": (triton_layer_norm, reference, "|y|"),
    "temperature": (functools.partial(_ENTRY, backend="triton"), functools.partial(_ENTRY, backend="sdpa"), "1/τ"),
}


def layer_norm_cases(kinds: tuple[str, ...], quick: bool) -> Iterator[Case]:
    """`layer_norm` is the kernel, y and |y|; `temperature` is the entry that the engine calls, y and 1/τ."""
    for kind in kinds:
        for name, shape in list(SHAPES.items())[: 1 if quick else None]:
            for kernel in WAYS:
                yield Case(kernel, name, kind, functools.partial(layer_norm_problem, shape, kind, kernel))


def layer_norm_problem(shape: tuple[int, int, int], kind: str, kernel: str, device: torch.device) -> Problem:
    """Random tokens with a common offset, weights and biases."""
    generator = torch.Generator().manual_seed(0)
    x = fenced((torch.randn(shape, generator=generator) * 2 + 1).to(device, DTYPES[kind]))
    weight, bias = (fenced(each.to(device, DTYPES[kind])) for each in torch.randn(2, shape[-1], generator=generator))
    ours, plain, beside = WAYS[kernel]

    def outputs(result: tuple[Tensor, Tensor]) -> Outputs:
        return {"y": result[0], beside: result[1][..., None]}

    return Problem(
        ours={"triton": functools.partial(ours, x, weight, bias, EPS)},
        rivals={"torch": functools.partial(plain, x, weight, bias, EPS)},
        truth=lambda: outputs(plain(x.double(), weight.double(), bias.double(), EPS)),
        plain=lambda: outputs(plain(x, weight, bias, EPS)),
        outputs=outputs,
    )
