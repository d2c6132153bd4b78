"""The ways to compute GEM's patch features that benchmarks hold side by side, each built in a process of its own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

Forward: TypeAlias = Callable[[Tensor], Tensor]  # pixels [B, 3, H, W] to L2-normalised patch features [B, h*w, E]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Provider:
    """One way to compute the forward.

    Attributes:
        name: what tables call it.
        kind: `engine`, `eager`, `compiled` (eager under torch.compile) or `authors`.
        dtype: float32, bfloat16 or float16.
        backend: of the engine's attention; None is its own choice.
        finish_original: the engine also computes what only the unchanged path needs, as eager code does.
    """

    name: str
    kind: str
    dtype: str = "float32"
    backend: str | None = None
    finish_original: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _BUILDERS:
            raise ValueError(f"unknown kind of provider {self.kind!r}; known are {', '.join(_BUILDERS)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    @property
    def key(self) -> str:
        return f"{self.name} {self.dtype}"


@dataclass(frozen=True)
class Subject:
    """The model that all providers of a run compute: open_clip's config, GEM's options and a file of weights."""

    name: str
    model_cfg: dict[str, Any]
    options: dict[str, Any]
    weights: str  # safetensors of the vision tower, open_clip's names without `visual.`


def build(provider: Provider, subject: Subject, device: str = "cpu") -> Forward:
    """Load the weights and return the forward, which takes float32 pixels on the CPU."""
    forward = _BUILDERS[provider.kind](provider, subject, device)
    return lambda pixels: forward(pixels.to(device))


def load_weights(subject: Subject) -> dict[str, Tensor]:
    """The weights in memory of their own: those of a mapped file would become resident only during a forward."""
    from safetensors.torch import load_file

    return {name: value.clone() for name, value in load_file(subject.weights).items()}


def _engine(provider: Provider, subject: Subject, device: str) -> Forward:
    from gem_fast.options import GemOptions
    from gem_fast.packing import pack_vision, vision_config

    options = replace(GemOptions(**subject.options), backend=provider.backend)
    packed = pack_vision(load_weights(subject), vision_config(subject.model_cfg), options)
    vision = packed.to(device, DTYPES[provider.dtype])
    return lambda pixels: vision(pixels, original=provider.finish_original).patches.flatten(1, 2)


def _eager(provider: Provider, subject: Subject, device: str) -> Forward:
    return eager_forward(subject, device, DTYPES[provider.dtype])


def eager_forward(subject: Subject, device: str, dtype: torch.dtype) -> Forward:
    """The eager way in any floating type; features are float32 or wider."""
    import open_clip
    from gem_fast.bench.eager import eager_gem

    visual = open_clip.CLIP(**subject.model_cfg).visual
    visual.load_state_dict(load_weights(subject))
    visual = visual.eval().requires_grad_(False).to(device, dtype)
    wide = torch.promote_types(dtype, torch.float32)
    return lambda pixels: eager_gem(visual, pixels, **subject.options)[0][:, 1:].to(wide)


def _compiled(provider: Provider, subject: Subject, device: str) -> Forward:
    compiled: Forward = torch.compile(_eager(provider, subject, device), dynamic=False)
    return compiled


def _authors(provider: Provider, subject: Subject, device: str) -> Forward:
    from gem_fast.bench.authors import build_authors

    return build_authors(subject, DTYPES[provider.dtype], device)


_BUILDERS = {"engine": _engine, "eager": _eager, "compiled": _compiled, "authors": _authors}
