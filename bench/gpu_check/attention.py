"""Cases of self-self attention: several launches, or one where a head is resident; rows of any norm; and of pairs."""

import functools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from gem_fast.kernels import pair_attention
from gem_fast.kernels.attention.reference import reference
from gem_fast.kernels.attention.sdpa import sdpa
from gem_fast.kernels.attention.triton.launch import device_of, launch_attention, why_not
from gem_fast.kernels.attention.triton.tile_choice import chosen_tile
from gem_fast.kernels.attention.triton.tile_trials import DTYPES
from gem_fast.kernels.attention.triton.tiles import Tile, split_width, tile_for
from torch import Tensor

from .cases import Case, Outputs, Problem, ends
from .flex import flex_self_self

Shape: TypeAlias = tuple[int, int, int, int]  # images, tokens, heads, channels of a head
TOWERS: dict[str, Shape] = {
    "ViT-B/32 224": (32, 50, 12, 64),
    "ViT-B/16 224": (16, 197, 12, 64),
    "ViT-L/14 224": (8, 257, 16, 64),
    "ViT-B/16 448": (4, 785, 12, 64),
    "ViT-H/14 448": (2, 1025, 16, 80),
    "ViT-g/14 448": (2, 1025, 16, 88),
    "ViT-bigG/14 448": (2, 1025, 16, 104),
    "ViT-B/16 1024": (1, 4097, 12, 64),
    "a head of 16,385 tokens": (1, 16_385, 1, 64),
}
WIDTHS: dict[str, Shape] = {f"{N} tokens, D = {D}": (2, N, 12, D) for D in (32, 96, 128) for N in (64, 257)}
QUICK = ("ViT-B/32 224", "ViT-B/16 448", "ViT-H/14 448")


@dataclass(frozen=True)
class Setting:
    """Options of the attention, as its backends take them."""

    iterations: int = 1
    projections: tuple[int, ...] = (0, 1, 2)
    normalize: bool = True

    def __str__(self) -> str:
        return f"{''.join('qkv'[i] for i in self.projections)}, K = {self.iterations}"


EVERY_NUMBER = tuple(Setting(iterations) for iterations in (0, 1, 2))
SUBSETS = tuple(Setting(1, projections) for projections in ((0,), (1,), (2,), (0, 1), (1, 2), (0, 2)))
PAIRS = (("qq+kk", None), ("kk", 5.0))  # with NACLIP's sigma, or without
ANY_NORM = (Setting(0, (2,), normalize=False), Setting(1, (0, 1, 2), normalize=False))


def attention_cases(kinds: tuple[str, ...], quick: bool) -> Iterator[Case]:
    """`self_self` over towers, widths, iterations and subsets of projections, `any_norm` (normalize=False), `pairs`."""
    shapes = {name: TOWERS[name] for name in QUICK} if quick else TOWERS | WIDTHS
    for kind in kinds:
        for name, shape in shapes.items():
            subsets = SUBSETS if name in QUICK[:2] and not quick else ()
            for setting in EVERY_NUMBER + subsets:
                yield _case("self_self", name, shape, kind, setting)
        for name in QUICK:
            for setting in ANY_NORM:
                yield _case("any_norm", name, TOWERS[name], kind, setting)
            for pairs, sigma in PAIRS:
                build = functools.partial(pairs_problem, TOWERS[name], kind, pairs, sigma)
                yield Case("pairs", f"{name}, {pairs}{' near' if sigma else ''}", kind, build)


def _case(kernel: str, name: str, shape: Shape, kind: str, setting: Setting) -> Case:
    build = functools.partial(attention_problem, shape, kind, setting)
    return Case(kernel, f"{name}, {setting}", kind, build)


def attention_problem(shape: Shape, kind: str, setting: Setting, device: torch.device) -> Problem:
    """Random projections, a temperature for each image. The first and the last image are held against float64.

    Raises:
        ValueError: Triton can't serve this here.
    """
    B, N, H, D = shape
    qkv = torch.randn(B, N, 3, H, D, generator=torch.Generator().manual_seed(0)).to(device, DTYPES[kind])
    c = torch.linspace(6, 2, B) if setting.normalize else torch.full((B,), D**-0.5)
    c, some, options = c.to(device), ends(B), asdict(setting)
    reason = why_not(qkv, c)
    if reason:
        raise ValueError(f"Triton can't serve this: {reason}")
    backends = {"sdpa": sdpa, "flex_attention": flex_self_self(device.type == "cuda"), "eager": reference}
    return Problem(
        ours={
            name: functools.partial(launch_attention, qkv, c, tiles=tiles, **options)
            for name, tiles in variants(qkv, setting).items()
        },
        rivals={name: functools.partial(attention, qkv, c, **options) for name, attention in backends.items()},
        truth=lambda: head_by_head(qkv[some].double(), c[some].double(), options),
        plain=lambda: head_by_head(qkv[some], c[some], options),
        outputs=lambda out: {"out": out[some]},
    )


def pairs_problem(shape: Shape, kind: str, pairs: str, sigma: float | None, device: torch.device) -> Problem:
    """Random projections of a square grid of patches, with the bias of near patches if there is a sigma."""
    B, N, H, D = shape
    qkv = torch.randn(B, N, 3, H, D, generator=torch.Generator().manual_seed(0)).to(device, DTYPES[kind])
    some, side = ends(B), math.isqrt(N - 1)

    def attend(backend: str, qkv: Tensor = qkv) -> Tensor:
        return pair_attention(qkv, D**-0.5, pairs, grid=(side, side), sigma=sigma, backend=backend)

    return Problem(
        ours={"triton": lambda: attend("triton")},
        rivals={"sdpa": lambda: attend("sdpa")},
        truth=lambda: {"out": attend("reference", qkv[some].double())},
        plain=lambda: {"out": attend("reference", qkv[some])},
        outputs=lambda out: {"out": out[some]},
    )


def variants(qkv: Tensor, setting: Setting) -> dict[str, dict[str, Tile | None]]:
    """The ways in which the launcher can serve a call, whichever it would choose, with the tiles that force each."""
    if not setting.normalize:
        return {"triton": {}}
    B, N, _, H, D = qkv.shape
    device, width = device_of(qkv.device), sum(split_width(D))

    def tile(operation: str) -> Tile | None:
        chosen = chosen_tile(device, operation, B * H, N, width, qkv.dtype)
        return chosen or tile_for(device, operation, width, qkv.dtype)

    found: dict[str, dict[str, Tile | None]] = {"triton tiled": {"resident": None, "assign_in_place": None}}
    in_place, resident = tile("assign_in_place"), tile("resident")
    if not setting.iterations and in_place:
        found["triton in place"] = {"resident": None, "assign_in_place": in_place}
    if resident and resident.rows >= N:
        found["triton resident"] = {"resident": resident}
    return found


def head_by_head(qkv: Tensor, c: Tensor, options: dict[str, Any]) -> Outputs:
    """The plain equations, with the N×N matrices of one head at a time in memory."""
    heads = [reference(qkv[:, :, :, head : head + 1], c, **options) for head in range(qkv.shape[3])]
    return {"out": torch.cat(heads, dim=-1)}
