"""Rotary positions in a graph: q and k of each token turned by the angles of its place, as in `towers.rotary`."""

from dataclasses import dataclass

import torch
from onnx import TensorProto

from gem_fast.towers.rotary import rotation_of
from gem_fast.towers.vit import GemVisionTransformer

from .image_head import Grid
from .layers import Layers


@dataclass(frozen=True)
class Rotation:
    """Tables `[N, 1, D]` of the products' type: of a channel itself, and of its neighbour in the pair, with a sign."""

    own: str
    neighbour: str


def rotation(layers: Layers, vision: GemVisionTransformer, size: tuple[int, int] | None, grid: Grid) -> Rotation | None:
    """The tables for a fixed size of pixels, or for a grid of patches; None without rotary."""
    config, graph = vision.config, layers.graph
    if config.rotary is None:
        return None
    signs = torch.tensor([-1.0, 1.0]).repeat(config.width // config.heads // 2)
    if size:
        sides = (size[0] // config.patch_size, size[1] // config.patch_size)
        tables = rotation_of(config, *sides, vision.position_embedding.float())
        assert tables is not None
        cosine, sine = tables[0, :, :, 0], tables[1, :, :, 0] * signs
        names = (f"rotary.{kind}.{size[0]}x{size[1]}" for kind in ("cosine", "sine"))
        return Rotation(*(layers.low_weight(name, value) for name, value in zip(names, (cosine, sine), strict=True)))
    angles = _angles(layers, vision, *map(graph.shape, grid))
    signed = graph.op("Mul", graph.op("Sin", angles), graph.weight("rotary.signs", signs))
    return Rotation(layers.low(graph.op("Cos", angles)), layers.low(signed))


def turned(layers: Layers, x: str, heads: int, tables: Rotation) -> str:
    """x `[B, N, heads*D]`, of the products' type, turned."""
    op, constant = layers.graph.op, layers.graph.constant
    apart = op("Reshape", x, constant([0, 0, heads, -1]))  # [B, N, heads, D]
    pairs = op("Reshape", x, constant([0, 0, heads, -1, 2]))
    swapped = op("Reshape", op("Gather", pairs, constant([1, 0]), axis=4), constant([0, 0, heads, -1]))
    sum_ = op("Add", op("Mul", apart, tables.own), op("Mul", swapped, tables.neighbour))
    return op("Reshape", sum_, constant([0, 0, -1]))


def _angles(layers: Layers, vision: GemVisionTransformer, h: str, w: str) -> str:
    """Of each token and channel, `[N, 1, D]` float32."""
    config, graph = vision.config, layers.graph
    rotary, op, constant = config.rotary, layers.graph.op, layers.graph.constant
    assert rotary is not None
    width = config.width // config.heads
    bands = graph.weight("rotary.bands", rotary.temperature ** -(torch.arange(width // 4) / (width // 4)))

    def axis(length: str, which: int) -> str:
        count = op("Squeeze", length, constant([0]))
        at = op("Cast", op("Range", constant(0), count, constant(1)), to=TensorProto.FLOAT)
        at = op("Add", at, graph.scalar(rotary.offset))
        if rotary.reference is not None:
            stretched = op("Div", at, op("Cast", length, to=TensorProto.FLOAT))
            at = op("Mul", stretched, graph.scalar(float(rotary.reference[which])))
        return op("Mul", op("Unsqueeze", at, constant([1])), bands)  # [length, D/4]

    shape = op("Concat", h, w, constant([width // 4]), axis=0)
    rows = op("Expand", op("Unsqueeze", axis(h, 0), constant([1])), shape)
    columns = op("Expand", op("Unsqueeze", axis(w, 1), constant([0])), shape)
    both = op("Concat", *((columns, rows) if rotary.columns_first else (rows, columns)), axis=2)
    each = op("Gather", both, constant([i // 2 for i in range(width)]), axis=2)
    angles = op("Reshape", each, constant([-1, 1, width]))
    if config.class_token:
        angles = op("Concat", graph.weight("rotary.class", torch.zeros(1, 1, width)), angles, axis=0)
    return angles
