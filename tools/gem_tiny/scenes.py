"""Random scenes of 1-3 drawings over varied backgrounds, with the visible pixels of each drawing.

Everything is a function of a seeded generator, vectorised over the batch: about a thousand 64-px scenes a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .backgrounds import rand, random_backgrounds
from .nouns import NOUNS

SLOTS = 3
# Side of a drawing as a fraction of the scene's, by number of objects; none is smaller than SMALLEST pixels.
SMALLEST = 18
SCALES = {0: (1.0, 1.0), 1: (0.35, 1.0), 2: (0.34, 0.62), 3: (0.28, 0.5)}


@dataclass(frozen=True, slots=True)
class Scenes:
    images: Tensor
    """[B, 3, S, S] in 0..1."""
    nouns: Tensor
    """[B, 3], index of each object's noun, -1 where there is none."""
    masks: Tensor
    """[B, 3, S, S] bool, the visible pixels of each object."""

    def presence(self) -> Tensor:
        """[B, nouns + 1] bool: which nouns are there, and last whether none is."""
        table = torch.zeros(len(self.nouns), len(NOUNS) + 1, dtype=torch.bool)
        table.scatter_(1, self.nouns % (len(NOUNS) + 1), True)
        table[:, -1] = (self.nouns < 0).all(-1)
        return table


class Drawings:
    """The tiles of the chosen styles, premultiplied by alpha, at three sizes."""

    def __init__(self, path: Path, styles: tuple[str, ...]):
        data = np.load(path)
        keep = np.isin(data["style"], styles)
        rgba = torch.from_numpy(data["rgba"][keep]).permute(0, 3, 1, 2).float() / 255
        rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
        self.levels = [(F.avg_pool2d(rgba, k) if k > 1 else rgba).mul(255).round().byte() for k in (1, 2, 4)]
        index = torch.from_numpy(data["noun"][keep]).long()
        self.count = torch.bincount(index, minlength=len(NOUNS))
        self.table = torch.zeros(len(NOUNS), int(self.count.max()), dtype=torch.long)
        for noun in range(len(NOUNS)):
            self.table[noun, : self.count[noun]] = torch.nonzero(index == noun).flatten()

    def choose(self, nouns: Tensor, g: Generator) -> Tensor:
        """A random drawing [M] of each noun [M]."""
        return self.table[nouns, (torch.rand(len(nouns), generator=g) * self.count[nouns]).long()]


def random_scenes(
    drawings: Drawings, batch: int, size: int, counts: tuple[int, ...], g: Generator, stylise: bool = False
) -> Scenes:
    """`batch` scenes of `size` px; the number of objects is drawn from `counts`, their nouns are distinct.

    `stylise` changes half of the drawings: outlines, greys, line drawings and colour shifts, for training.
    """
    counted = torch.tensor(counts)[torch.randint(len(counts), (batch,), generator=g)]
    nouns = torch.rand(batch, len(NOUNS), generator=g).topk(SLOTS).indices
    nouns[torch.arange(SLOTS) >= counted[:, None]] = -1
    return compose(drawings, nouns, size, g, stylise)


def compose(drawings: Drawings, nouns: Tensor, size: int, g: Generator, stylise: bool = False) -> Scenes:
    """Scenes of given nouns [B, 3], -1 where there is none."""
    batch = len(nouns)
    where = torch.nonzero(nouns >= 0)
    centres, scales = _layout((nouns >= 0).sum(-1), SMALLEST / size, g)
    layers = _place(drawings, nouns[nouns >= 0], centres[nouns >= 0], scales[nouns >= 0], size, g)
    if stylise:
        layers = torch.where(rand(g, len(layers), 1, 1, 1) < 0.5, _stylise(layers, g), layers)
    layers = _recolour(layers, g)
    canvas = torch.zeros(batch, SLOTS, 4, size, size)
    canvas[where[:, 0], where[:, 1]] = layers
    images = random_backgrounds(batch, size, g)
    masks: list[Tensor] = []
    for slot in range(SLOTS):
        colour, alpha = canvas[:, slot, :3], canvas[:, slot, 3:]
        images = images * (1 - alpha) + colour
        visible = alpha[:, 0] > 0.5
        masks = [mask & ~visible for mask in masks] + [visible]
    noise = torch.randn(images.shape, generator=g) * rand(g, batch, 1, 1, 1) * 0.04
    return Scenes((images + noise).clamp(0, 1), nouns, torch.stack(masks, 1))


def _layout(counted: Tensor, smallest: float, g: Generator) -> tuple[Tensor, Tensor]:
    """Centres [B, 3, 2] in -1..1 and sides [B, 3] as fractions: of 12 arrangements, the one that overlaps least."""
    batch, tries = len(counted), 12
    low = torch.tensor([max(SCALES[int(c)][0], smallest) for c in counted])[:, None]
    high = torch.tensor([SCALES[int(c)][1] for c in counted])[:, None]
    scales = low + (high - low) * rand(g, batch, SLOTS)
    reach = (1.08 - scales).clamp(min=0)[:, None, :, None]
    centres = (2 * torch.rand(batch, tries, SLOTS, 2, generator=g) - 1) * reach
    gap = (centres[:, :, :, None] - centres[:, :, None]).abs().amax(-1)
    gap = gap - (scales[:, None, :, None] + scales[:, None, None, :])
    used = torch.arange(SLOTS) < counted[:, None]
    pair = used[:, :, None] & used[:, None] & ~torch.eye(SLOTS, dtype=torch.bool)
    worst = gap.masked_fill(~pair[:, None], 9.0).flatten(2).amin(-1).clamp(max=0.05)
    best = (worst + 1e-3 * rand(g, batch, tries)).argmax(1)
    return centres[torch.arange(batch), best], scales


def _place(drawings: Drawings, nouns: Tensor, centres: Tensor, scales: Tensor, size: int, g: Generator) -> Tensor:
    """Premultiplied layers [M, 4, size, size]: each drawing flipped, rotated, squeezed, scaled and moved."""
    count = len(nouns)
    chosen = drawings.choose(nouns, g)
    angle = (rand(g, count) * 2 - 1) * math.radians(25)
    flip = torch.where(rand(g, count) < 0.5, -1.0, 1.0)
    squeeze = (0.85 + 0.3 * rand(g, count)).sqrt()
    cos, sin = angle.cos() / scales, angle.sin() / scales
    linear = torch.stack([flip * cos * squeeze, flip * sin * squeeze, -sin / squeeze, cos / squeeze], -1)
    linear = linear.view(count, 2, 2)
    theta = torch.cat([linear, -linear @ centres[..., None]], -1)
    layers = torch.empty(count, 4, size, size)
    pixels = scales * size
    for level, (low, high) in enumerate(((60, math.inf), (28, 60), (0, 28))):
        rows = torch.nonzero((pixels >= low) & (pixels < high)).flatten()
        if not len(rows):
            continue
        tiles = drawings.levels[level][chosen[rows]].float() / 255
        grid = F.affine_grid(theta[rows], [len(rows), 4, size, size], align_corners=False)
        layers[rows] = F.grid_sample(tiles, grid, align_corners=False)
    return layers


def _recolour(layers: Tensor, g: Generator) -> Tensor:
    """Random saturation, channel gains, contrast and brightness of premultiplied layers."""
    count = len(layers)
    colour, alpha = layers[:, :3], layers[:, 3:]
    grey = colour.mean(1, keepdim=True)
    colour = grey + (colour - grey) * (0.7 + 0.5 * rand(g, count, 1, 1, 1))
    colour = colour * (0.85 + 0.3 * rand(g, count, 3, 1, 1))
    contrast = 0.8 + 0.3 * rand(g, count, 1, 1, 1)
    shift = (1 - contrast) * 0.5 + 0.16 * (rand(g, count, 1, 1, 1) - 0.5)
    return torch.cat([(colour * contrast + shift * alpha).clamp(min=0).minimum(alpha), alpha], 1)


def _stylise(layers: Tensor, g: Generator) -> Tensor:
    """8% grey, 12% channels mixed, 10% line drawings, 8% posterised, 25% outlined, of premultiplied layers."""
    count = len(layers)
    colour, alpha = layers[:, :3], layers[:, 3:]
    dice = rand(g, count, 1, 1, 1)
    grey = colour.mean(1, keepdim=True).expand_as(colour)
    mixed = torch.softmax(3 * torch.randn(count, 3, 3, generator=g), -1) @ colour.flatten(2)
    edges = F.max_pool2d(grey[:, :1], 3, 1, 1) + F.max_pool2d(-grey[:, :1], 3, 1, 1)
    drawn = (alpha - 3 * edges * alpha).clamp(0, 1).expand_as(colour)
    flat = (colour * 4).round() / 4
    colour = torch.where(dice < 0.08, grey, colour)
    colour = torch.where((dice >= 0.08) & (dice < 0.20), mixed.view_as(colour), colour)
    colour = torch.where((dice >= 0.20) & (dice < 0.30), 0.6 * drawn + 0.4 * torch.minimum(drawn, colour), colour)
    colour = torch.where((dice >= 0.30) & (dice < 0.38), flat.minimum(alpha), colour)
    outlined = rand(g, count, 1, 1, 1) < 0.25
    ink = (rand(g, count, 1, 1, 1) < 0.25).float()
    rim = (F.max_pool2d(alpha, 3, 1, 1) - alpha).clamp(min=0) * outlined
    inner = (alpha + F.max_pool2d(-alpha, 3, 1, 1)).clamp(min=0) * outlined
    colour = colour * (1 - inner) + ink * (inner * alpha + rim)
    return torch.cat([colour, alpha + rim], 1)
