"""Random backgrounds: solid, gradient, noise, stripes, checks, each with or without distractor shapes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def rand(g: Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=g)


def random_backgrounds(batch: int, size: int, g: Generator, shapes: int = 3) -> Tensor:
    """[batch, 3, size, size] in 0..1."""
    first, second = _colours(batch, g), _colours(batch, g)
    y, x = _coordinates(size)
    angle = rand(g, batch, 1, 1) * 2 * math.pi
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    waves = math.pi * (1.5 + 5 * rand(g, batch, 1, 1))
    stripes = (along * waves).sin()
    sharp = torch.where(rand(g, batch, 1, 1) < 0.5, 12.0, 1.0)
    mixes = torch.stack(
        [
            torch.zeros(batch, size, size),
            along * 0.5 + 0.5,
            _noise(batch, size, g),
            (stripes * sharp).sigmoid(),
            (stripes * (across * waves).sin() * 2 * sharp).sigmoid(),
        ]
    ).clamp(0, 1)
    kind = torch.multinomial(torch.tensor([0.2, 0.2, 0.3, 0.15, 0.15]), batch, replacement=True, generator=g)
    mix = mixes[kind, torch.arange(batch)][:, None]
    image = first * (1 - mix) + second * mix
    texture = torch.randn(batch, 3, size, size, generator=g) * 0.05 * (rand(g, batch, 1, 1, 1) < 0.3)
    image = image + texture
    for _ in range(shapes):
        present = rand(g, batch, 1, 1, 1) < 0.3
        alpha = _shape(batch, size, g)[:, None] * present
        image = image * (1 - alpha) + _colours(batch, g) * alpha
    return image.clamp(0, 1)


def _coordinates(size: int) -> tuple[Tensor, Tensor]:
    line = (torch.arange(size) + 0.5) * 2 / size - 1
    return line[:, None].expand(size, size), line[None].expand(size, size)


def _colours(batch: int, g: Generator) -> Tensor:
    """[batch, 3, 1, 1]: half of them pale or dark, half of them anything."""
    colour = rand(g, batch, 3)
    grey = (rand(g, batch, 1) < 0.5).float() * rand(g, batch, 1)
    base = torch.where(rand(g, batch, 1) < 0.6, 0.9, 0.15)
    return (colour * (1 - grey) + base * grey)[..., None, None]


def _noise(batch: int, size: int, g: Generator) -> Tensor:
    """Two octaves of smooth noise [batch, size, size]."""
    octaves = [F.interpolate(rand(g, batch, 1, n, n), (size, size), mode="bicubic") for n in (3, 8)]
    return (0.65 * octaves[0] + 0.35 * octaves[1])[:, 0]


def _shape(batch: int, size: int, g: Generator) -> Tensor:
    """Coverage [batch, size, size] of an ellipse, a rectangle or a ring at a random place."""
    y, x = _coordinates(size)
    cx, cy = 2 * rand(g, batch, 1, 1) - 1, 2 * rand(g, batch, 1, 1) - 1
    width, height = 0.08 + 0.4 * rand(g, batch, 1, 1), 0.08 + 0.4 * rand(g, batch, 1, 1)
    angle = rand(g, batch, 1, 1) * math.pi
    u = ((x - cx) * angle.cos() + (y - cy) * angle.sin()) / width
    v = ((y - cy) * angle.cos() - (x - cx) * angle.sin()) / height
    kind = rand(g, batch, 1, 1)
    radius = torch.where(kind < 0.66, (u * u + v * v).sqrt(), torch.maximum(u.abs(), v.abs()))
    inside = ((1 - radius) * width * size / 2 + 0.5).clamp(0, 1)
    hollow = ((radius - 0.65) * width * size / 2 + 0.5).clamp(0, 1)
    return torch.where(kind < 0.25, inside * hollow, inside)
