"""Results of no model, for tests of what is made of them."""

import torch
from PIL import Image

from gem_fast import Segmentation
from gem_fast.decoding import KernelDecoder


def result(classes=3, size=(20, 30), threshold=0.0, scale=100.0, seed=0, source=None):
    """A result with random scores on a 4×6 grid."""
    names = tuple(f"class {i}" for i in range(classes)) if isinstance(classes, int) else tuple(classes)
    scores = torch.rand(len(names), 4, 6, generator=torch.Generator().manual_seed(seed)) / 10
    image = Image.new("RGB", (size[1], size[0]), (90, 120, 150))
    return Segmentation(image, names, scores, threshold, scale, KernelDecoder(), source)
