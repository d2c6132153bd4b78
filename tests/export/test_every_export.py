"""Every method as every kind of graph and program, on a tower of a few thousand weights, against the engine."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from gem_fast.export.comparison import relative_error
from gem_fast.export.export_options import ATTENTIONS, OPSETS
from gem_fast.export.program import traced

import gem_fast
from gem_fast.towers.vision_config import VisionConfig
from gem_fast.towers.vit import GemVisionTransformer
from tests.export.test_image_encoder import open_encoder, pixels

# Of those that ONNX Runtime runs as they are written.
WAYS = [(kind, opset) for kind in ATTENTIONS if kind != "plugin" for opset in OPSETS if opset >= ATTENTIONS[kind]]
CONFIG = VisionConfig(width=16, layers=3, heads=2, mlp_width=24, patch_size=4, grid=(3, 3), embed_dim=8)


@functools.cache
def model(method):
    """Its image encoder, with random weights: a block that is as it was, and one or two that are not."""
    generator = torch.Generator().manual_seed(0)
    whole = gem_fast.methods()[method]
    vision = GemVisionTransformer(CONFIG, replace(whole, blocks=min(whole.blocks, 2)))
    for name, weight in vision.named_parameters():
        centre = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
        weight.data = centre + 0.3 * torch.randn(weight.shape, generator=generator)
    return SimpleNamespace(vision=vision)


def holds(vision, found):
    truth = vision(pixels(2, 12, 20), original=True)
    assert relative_error(found["patch_features"], truth.patches) <= 2e-6
    assert relative_error(found["image_embedding"], truth.original_class) <= 2e-6


@pytest.mark.parametrize(("attention", "opset"), WAYS)
def test_graphs(attention, opset):
    """Of any size, with what feature surgery needs."""
    for method in gem_fast.methods():
        encode = open_encoder(model(method), None, opset=opset, attention=attention, feature_surgery=True)
        holds(model(method).vision, encode(pixels(2, 12, 20)))


@pytest.mark.parametrize("method", gem_fast.methods())
def test_programs(method):
    """What `exported-program` saves and `pt2` compiles."""
    found = traced(model(method).vision, (12, 20), feature_surgery=True).module()(pixels(2, 12, 20))
    holds(model(method).vision, dict(zip(("patch_features", "image_embedding"), found, strict=True)))
