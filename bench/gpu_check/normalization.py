"""Cases of LayerNorm with the norms of its tokens, alone and with the sums before and beside it."""

import functools
from collections.abc import Callable, Iterator

import torch
from gem_fast.kernels.attention.triton.tile_trials import DTYPES
from gem_fast.kernels.layer_norm import Normed, add_layer_norm
from torch import Tensor

from .cases import Case, Outputs, Problem
from .fences import fenced

SHAPES = {"ViT-B/16 448": (8, 785, 768), "ViT-L/14 224": (8, 257, 1024), "ViT-bigG/14 448": (2, 1025, 1664)}
WAYS = ("layer_norm", "add_layer_norm")


def layer_norm_cases(kinds: tuple[str, ...], quick: bool) -> Iterator[Case]:
    for kind in kinds:
        for name, shape in list(SHAPES.items())[: 1 if quick else None]:
            for kernel in WAYS:
                yield Case(kernel, name, kind, functools.partial(layer_norm_problem, shape, kind, kernel))


def layer_norm_problem(shape: tuple[int, int, int], kind: str, kernel: str, device: torch.device) -> Problem:
    """Random tokens with a common offset, weights and biases; for `add_layer_norm` what is added to tokens too."""
    generator, adds = torch.Generator().manual_seed(0), kernel == "add_layer_norm"
    tokens = torch.randn(4, *shape, generator=generator) * 2 + 1
    weights = torch.randn(2, shape[-1], generator=generator)
    given = [fenced(each.to(device, DTYPES[kind])) for each in (*tokens, *weights)]

    def normed(backend: str, change: Callable[[Tensor], Tensor] = lambda each: each) -> Normed:
        x, branch, one, other, weight, bias = map(change, given)
        sums = (branch, (one, other)) if adds else (None, None)
        return add_layer_norm(x, sums[0], weight, bias, 1e-5, 64, sums[1], backend=backend)

    def outputs(found: Normed) -> Outputs:
        """Plain torch gives an image's temperature, of which the tokens' are the norms of y."""
        own = found.scale is not None and found.scale.ndim == 2
        scale = found.scale if own else torch.linalg.vector_norm(found.y, dim=-1) / 64**0.5
        sums = {"sum": found.tokens, "aside": found.aside} if adds else {}
        return {"y": found.y, "1/τ": scale[..., None], **sums}  # type: ignore[index, dict-item]

    return Problem(
        ours={"triton": functools.partial(normed, "triton")},
        rivals={"torch": functools.partial(normed, "sdpa")},
        truth=lambda: outputs(normed("sdpa", Tensor.double)),
        plain=lambda: outputs(normed("sdpa")),
        outputs=outputs,
    )
