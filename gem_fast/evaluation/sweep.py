"""GEM with several settings at once: the image, the unchanged path and its projections are computed once."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gem_fast.kernels import layer_norm_and_temperature

from ..method import Method
from ..model import GemModel
from ..preprocess import normalised
from ..scores import score_patches
from ..towers.rotary import rotate, rotation_of

if TYPE_CHECKING:
    from ..towers.block import Block
    from ..towers.vit import GemVisionTransformer

_LARGEST_MULTIPLE = 1e6  # of a temperature; beyond, float32 has no room for what is multiplied
SWEPT = ("iterations", "projections", "normalize", "temperature")


@dataclass(frozen=True)
class Variant:
    """A method beside the unchanged path, and a multiple of its temperature."""

    name: str
    method: Method
    temperature: float = 1.0


def parse_sweep(texts: Sequence[str], method: Method) -> tuple[Variant, ...]:
    """Every combination of settings such as `iterations=0,1,2` and `temperature=0.5,1,2`, of a method like GEM.

    Raises:
        ValueError: a setting is wrong, or the method is no path beside the unchanged one.
    """
    if not method.beside:
        raise ValueError(f"sweeps are of paths beside the unchanged one, such as gem's, and {method.name} is none")
    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name not in SWEPT or not values:
            raise ValueError(f"a sweep is NAME=VALUE,VALUE,... with one of {', '.join(SWEPT)}, got {text!r}")
        axes.setdefault(name, []).extend(_value(name, each.strip()) for each in values.split(","))
    for name, listed in axes.items():
        if len(set(listed)) < len(listed):
            raise ValueError(f"the sweep of {name} names a value more than once: {', '.join(map(str, listed))}")
    return tuple(_variant(dict(zip(axes, chosen, strict=True)), method) for chosen in product(*axes.values()))


def _value(name: str, text: str) -> Any:
    kinds: dict[str, Callable[[str], Any]] = {
        "iterations": int,
        "temperature": float,
        "projections": str,
        "normalize": _truth,
    }
    try:
        return kinds[name](text)
    except ValueError as error:
        raise ValueError(f"the sweep of {name} can't take {text!r}") from error


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _variant(chosen: dict[str, Any], method: Method) -> Variant:
    """A method with some settings; without normalising, its scale is the head's, as in the paper's Table 1."""
    name, temperature = ", ".join(f"{key}={value}" for key, value in chosen.items()), chosen.pop("temperature", 1.0)
    if not 1 / _LARGEST_MULTIPLE <= temperature <= _LARGEST_MULTIPLE:
        raise ValueError(
            f"a temperature's multiple must be {1 / _LARGEST_MULTIPLE} to {_LARGEST_MULTIPLE}, got {temperature}"
        )
    changes: dict[str, Any] = {key: chosen[key] for key in ("iterations", "normalize") if key in chosen}
    if letters := chosen.get("projections"):
        changes["attention"] = "+".join(letter * 2 for letter in letters)
    if changes.get("normalize") is False:
        changes.setdefault("iterations", 0)
        changes["scale"] = "head"
    return Variant(name, replace(method, **changes), temperature)


def layers(
    vision: "GemVisionTransformer", variants: Sequence[Variant], pixels: Tensor, original: bool = False
) -> list[list[Tensor | None]]:
    """Tokens `[B, N, C]` of each variant's path after each block, None before its first; the last are its features'.

    The unchanged path, its projections and the adaptive temperature are computed once. With `original`, the unchanged
    path's tokens come first.
    """
    grid = vision.grid(pixels)
    blocks: list[Block] = list(vision.blocks)  # type: ignore[arg-type]
    views = [_as(vision, each.method) for each in variants]
    x = vision.embed(pixels, *grid).added()
    rotation = rotation_of(vision.config, *grid, vision.position_embedding)
    paths: list[Tensor | None] = [None] * len(variants)
    found = []
    for index, block in enumerate(blocks):
        norm, width = block.ln_1, x.shape[-1] // block.heads
        y, adaptive = layer_norm_and_temperature(x, norm.weight, norm.bias, norm.eps, width, backend=vision.backend)
        plain = block.project(y)
        qkv = rotate(plain, rotation)
        read = qkv if vision.config.rotated else plain
        for k, (each, view) in enumerate(zip(variants, views, strict=True)):
            if index < len(blocks) - each.method.blocks:
                continue
            scale = adaptive if each.method.adaptive else each.method.scale_of(width)
            changed = block.merge(view.attention(read, scale / each.temperature, grid))
            before = paths[k] if paths[k] is not None else (x if each.method.residual else None)
            paths[k] = changed if before is None else before + changed
        if original or index + 1 < len(blocks):
            x = block.original(x, qkv, vision.backend).added()
        found.append([x, *paths] if original else list(paths))
    return found


def _as(vision: "GemVisionTransformer", method: Method) -> "GemVisionTransformer":
    """The same weights with another method."""
    view = copy.copy(vision)
    view.method = method
    return view


@dataclass(frozen=True)
class SweptModel(GemModel):
    """A model whose scores are those of each variant in turn, for words that are asked as often.

    Attributes:
        variants: of its method.
    """

    variants: tuple[Variant, ...] = ()

    def patch_features(self, pixels: np.ndarray, shape: tuple[int, int]) -> Tensor:
        """Of each variant, `[V, B, h, w, E]`."""
        inputs = torch.from_numpy(normalised(pixels, self.mean, self.std)).to(self.device)
        with torch.inference_mode():
            paths = layers(self.vision, self.variants, inputs)[-1]
            first = self.vision.config.first_patch
            features = [self.vision.head(each)[:, first:] for each in paths if each is not None]
            return torch.stack(features).unflatten(2, self.vision.grid(inputs))

    def scores(self, patches: Any, members: Sequence[int], words: Tensor, groups: Sequence[int]) -> Tensor:
        each = zip(patches, words.chunk(len(self.variants)), strict=True)
        count = len(groups) // len(self.variants)
        return torch.cat([score_patches(own[list(members)], asked, list(groups[:count])) for own, asked in each], 1)


def swept(model: GemModel, texts: Sequence[str]) -> SweptModel:
    """The model with the variants of a sweep of its method; ValueError if it has none, or scores by feature surgery."""
    if model.feature_surgery:
        raise ValueError("a sweep's scores are cosines: load the model without feature_surgery")
    variants = parse_sweep(texts, model.vision.method)
    return SweptModel(**{each.name: getattr(model, each.name) for each in fields(GemModel)}, variants=variants)
