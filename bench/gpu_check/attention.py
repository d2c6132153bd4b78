"""Cases of self-self attention: several launches, or one where a head is resident; rows of any norm; and of pairs."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from gem_fast.kernels import pair_attention, self_self_attention
from gem_fast.kernels.attention.reference import reference
from gem_fast.kernels.attention.sdpa import sdpa
from gem_fast.kernels.attention.self_self import OPERATION as SELF_SELF
from gem_fast.kernels.attention.triton.launch import launch_attention, pays, why_not
from gem_fast.kernels.attention.triton.tile_choice import chosen_tile
from gem_fast.kernels.attention.triton.tile_trials import DTYPES
from gem_fast.kernels.attention.triton.tiles import Tile, device_of, split_width, tile_for
from gem_fast.kernels.first_use import as_plain
from torch import Tensor

from gem_fast.method import Method, methods

from .cases import Call, Case, Outputs, Problem
from .fences import fenced

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

    @property
    def public(self) -> dict[str, Any]:
        """The same as `self_self_attention` takes them."""
        return asdict(self) | {"projections": "".join("qkv"[i] for i in self.projections)}

    def __str__(self) -> str:
        return f"{self.public['projections']}, K = {self.iterations}"


EVERY_NUMBER = tuple(Setting(iterations) for iterations in (0, 1, 2))
SUBSETS = tuple(Setting(1, projections) for projections in ((0,), (1,), (2,), (0, 1), (1, 2), (0, 2)))
PAIRS = {name: row for name, row in methods().items() if row.pairs and not row.refines}
_ZERO = "rows of zero"
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "packed": fenced,
    "images inside tokens": lambda qkv: fenced(qkv.transpose(0, 1).contiguous()).transpose(0, 1),
    "wider rows": lambda qkv: fenced(F.pad(qkv, (0, 8)))[..., : qkv.shape[-1]],
    _ZERO: lambda qkv: fenced(qkv * (torch.arange(qkv.shape[1], device=qkv.device) % 3 > 0).view(-1, 1, 1, 1)),
    "misaligned": functools.partial(fenced, shift=1),
}
ODD_SHAPE = (3, 1, 2, 64)  # one token
HUGE: dict[str, Shape] = {"more than 2³¹ elements": (1200, 785, 12, 64), "70,001 tokens": (1, 70_001, 2, 64)}
ANY_NORM = (Setting(0, (2,), normalize=False), Setting(1, (0, 1, 2), normalize=False))


def attention_cases(kinds: tuple[str, ...], quick: bool) -> Iterator[Case]:
    """`self_self` over towers, widths, iterations and subsets of projections, and odd `layouts` and sizes;
    `any_norm` (normalize=False); `pairs` of the other methods."""
    shapes = {name: TOWERS[name] for name in QUICK} if quick else TOWERS | WIDTHS
    for kind in kinds:
        for name, shape in shapes.items():
            subsets = SUBSETS if name in QUICK[:2] and not quick else ()
            for setting in EVERY_NUMBER + subsets:
                yield _case("self_self", name, shape, kind, setting)
        for name in QUICK:
            for setting in ANY_NORM:
                yield _case("any_norm", name, TOWERS[name], kind, setting)
            for method, row in PAIRS.items():
                build = functools.partial(pairs_problem, TOWERS[name], kind, row)
                yield Case("pairs", f"{name}, {method}", kind, build)
        for layout in LAYOUTS:
            for shape in (ODD_SHAPE, TOWERS[QUICK[0]]):
                for setting in EVERY_NUMBER[:2]:
                    name = f"{shape[1]} tokens, {layout}"
                    yield _case("layouts", name, shape, kind, setting, layout=layout)
        for name, shape in HUGE.items() if kind == "bfloat16" and not quick else ():
            build = functools.partial(huge_problem, shape, kind)
            yield Case("self_self", f"{name}, {EVERY_NUMBER[0]}", kind, build)


def _case(kernel: str, name: str, shape: Shape, kind: str, setting: Setting, **options: Any) -> Case:
    build = functools.partial(attention_problem, shape, kind, setting, **options)
    return Case(kernel, f"{name}, {setting}", kind, build, timed=kernel != "layouts")


def attention_problem(
    shape: Shape, kind: str, setting: Setting, device: torch.device, layout: str = "packed"
) -> Problem:
    """Random projections, a temperature for each image.

    Raises:
        ValueError: Triton can't serve this here.
    """
    B, N, H, D = shape
    qkv = LAYOUTS[layout](
        torch.randn(B, N, 3, H, D, generator=torch.Generator().manual_seed(0)).to(device, DTYPES[kind])
    )
    c = torch.linspace(6, 2, B) if setting.normalize else torch.full((B,), D**-0.5)
    c, options = fenced(c.to(device)), asdict(setting)
    reason = why_not(qkv, c)
    if reason:
        raise ValueError(f"Triton can't serve this: {reason}")

    def plain(projections: Tensor) -> Outputs:
        if layout == _ZERO:  # of which eager code in float16 makes NaN
            return {"out": sdpa(projections, c, **options)}
        return head_by_head(projections, c, options)

    forced = variants(qkv, setting).items()
    ours: dict[str, Call] = {
        name: functools.partial(launch_attention, qkv, c, tiles=tiles, **options) for name, tiles in forced
    }
    if pays(qkv, c, *options.values()):
        taken = SELF_SELF.choose(None, qkv, c, *options.values()).name
        if taken != "triton":
            raise ValueError(f"Triton pays here, and {taken} is taken: it was found wrong at its first use")
        ours["automatic"] = functools.partial(self_self_attention, qkv, c, **setting.public)
    return Problem(
        ours=ours,
        rivals={
            name: functools.partial(way, qkv, c, **options) for name, way in (("sdpa", sdpa), ("eager", reference))
        },
        truth=lambda: head_by_head(qkv.double(), c.double(), options),
        plain=lambda: plain(as_plain(qkv, kind)),
    )


def huge_problem(shape: Shape, kind: str, device: torch.device) -> Problem:
    """Projections made on the device, whose last image is compared in some rows of Eq. 6 from the projections."""
    B, N, H, D = shape
    generator = torch.Generator(device).manual_seed(0)
    qkv = torch.empty(B, N, 3, H, D, dtype=DTYPES[kind], device=device).normal_(generator=generator)
    c, options, rows = torch.full((B,), 3.0, device=device), asdict(Setting(0)), slice(None, None, max(1, N // 50))

    def some(own: Tensor) -> Outputs:
        """Of the last image [N, 3, H, D], in the precision given."""
        heads = own.permute(1, 2, 0, 3)  # [3, H, N, D]
        unit = F.normalize(heads, dim=-1)
        logits = c[-1].to(own.dtype) * (unit[:, :, rows] @ unit.mT)
        return {"out": (torch.softmax(logits, dim=-1) @ heads[2]).mean(0).transpose(0, 1).flatten(1)}

    return Problem(
        ours={"automatic": functools.partial(self_self_attention, qkv, c, **Setting(0).public)},
        rivals={"sdpa": functools.partial(sdpa, qkv, c, **options)},
        truth=lambda: some(qkv[-1].double()),
        plain=lambda: some(as_plain(qkv[-1], kind)),
        outputs=lambda out: {"out": out[-1, rows]},
    )


def pairs_problem(shape: Shape, kind: str, method: Method, device: torch.device) -> Problem:
    """Random projections of a square grid of patches, with the bias of near patches if the method has one."""
    B, N, H, D = shape
    qkv = fenced(torch.randn(B, N, 3, H, D, generator=torch.Generator().manual_seed(0)).to(device, DTYPES[kind]))
    side = math.isqrt(N - 1)
    options: dict[str, Any] = {"average": method.average, "grid": (side, side), "sigma": method.distance}

    def attend(projections: Tensor, backend: str) -> Tensor:
        return pair_attention(projections, D**-0.5, method.attention, backend=backend, **options)

    return Problem(
        ours={"triton": lambda: attend(qkv, backend="triton")},
        rivals={"sdpa": lambda: attend(qkv, backend="sdpa")},
        truth=lambda: {"out": attend(qkv.double(), backend="reference")},
        plain=lambda: {"out": attend(as_plain(qkv, kind), backend="reference")},
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
