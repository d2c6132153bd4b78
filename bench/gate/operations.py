"""What the gate times, each through what both sides have in common: the package's public functions.

This runs in the processes of both sides: whatever it needs of gem_fast is imported inside a function, and what an older
side lacks raises ImportError or AttributeError there.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Call: TypeAlias = Callable[[], Any]
FLOAT32, BFLOAT16, EXACT = 1e-5, 2e-2, 1e-6  # largest relative distance of outputs
LABELS = 1e-2  # of label images: a pixel in ten thousand may fall to another class
PHOTO = Path(__file__).resolve().parents[2] / "gem_fast" / "samples" / "coffee.jpg"
SIDE = (448, 448)


@dataclass(frozen=True)
class Operation:
    """One thing to time: `make` sets it up and returns the call, whose result both sides must agree on."""

    name: str
    make: Callable[[], Call]
    allowed: float


def _attention(name: str, dtype: torch.dtype) -> Call:
    """The 12 heads of a ViT-B/16 at 448×448."""
    from gem_fast import kernels

    function = getattr(kernels, name)
    qkv = torch.randn(1, 785, 3, 12, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    arguments = (qkv, torch.tensor([3.0])) if name == "self_self_attention" else (qkv,)
    return lambda: function(*arguments)


def _scores(classes: int) -> Tensor:
    return torch.randn(classes, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.02 + 0.2


def _labels() -> Call:
    from gem_fast.kernels import decode_labels

    scores = _scores(150)
    return lambda: decode_labels(scores, SIDE, logit_scale=100.0, threshold=0.0)[0]


def _heatmaps() -> Call:
    from gem_fast.kernels import decode_heatmaps

    scores = _scores(20)
    return lambda: decode_heatmaps(scores, SIDE)


def _layer_norm() -> Call:
    from gem_fast.kernels import layer_norm_and_temperature

    x = torch.randn(1, 785, 768, generator=torch.Generator().manual_seed(0))
    weight, bias = torch.ones(768), torch.zeros(768)
    return lambda: layer_norm_and_temperature(x, weight, bias, 1e-5, 64)[0]


@cache
def _model(name: str, dtype: str = "float32") -> Any:
    import gem_fast

    torch.manual_seed(0)
    return gem_fast.load(name, None if name == "gem-tiny" else "random", dtype=dtype)


def _forward(name: str, dtype: str, size: int) -> Call:
    model = _model(name, dtype)
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    return lambda: model.features(pixels)


def _text() -> Call:
    """New words in each call: what is encoded once is remembered. Only the first call's result is the same again."""
    model, count = _model("ViT-B-16"), iter(range(10**9))

    def call() -> Tensor:
        start = 16 * next(count)
        result: Tensor = model.encode_text([f"thing {i}" for i in range(start, start + 16)])
        return result

    return call


def _reading() -> Call:
    from gem_fast.images import load_image

    return lambda: np.asarray(load_image(PHOTO))


def _preprocessing() -> Call:
    from gem_fast.images import load_image
    from gem_fast.preprocess import to_pixels

    photo = load_image(PHOTO)
    return lambda: to_pixels(photo, SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def _writing() -> Call:
    """Overlay and labels of a photo as PNG."""
    result = _model("gem-tiny").segment(PHOTO, ["cat", "dog", "apple"], size=64, threshold=0)
    folder = tempfile.TemporaryDirectory()  # lives as long as the call

    def call() -> np.ndarray:
        result.save(folder.name)
        labels: np.ndarray = result.labels
        return labels

    return call


OPERATIONS = (
    Operation("self-self attention float32", partial(_attention, "self_self_attention", torch.float32), FLOAT32),
    Operation("self-self attention bfloat16", partial(_attention, "self_self_attention", torch.bfloat16), BFLOAT16),
    Operation("q·k attention float32", partial(_attention, "query_key_attention", torch.float32), FLOAT32),
    Operation("q·k attention bfloat16", partial(_attention, "query_key_attention", torch.bfloat16), BFLOAT16),
    Operation("LayerNorm and temperature", _layer_norm, FLOAT32),
    Operation("labels, 150 classes at 448²", _labels, LABELS),
    Operation("heat maps, 20 at 448²", _heatmaps, FLOAT32),
    Operation("forward gem-tiny 224² float32", partial(_forward, "gem-tiny", "float32", 224), FLOAT32),
    Operation("forward ViT-B-16 224² float32", partial(_forward, "ViT-B-16", "float32", 224), FLOAT32),
    Operation("forward ViT-B-16 448² bfloat16", partial(_forward, "ViT-B-16", "bfloat16", 448), BFLOAT16),
    Operation("text, 16 prompts", _text, FLOAT32),
    Operation("reading a JPEG", _reading, EXACT),
    Operation("resizing to 448²", _preprocessing, FLOAT32),
    Operation("writing labels and overlay", _writing, LABELS),
)


def as_array(result: Any) -> np.ndarray:
    """A call's result as float32."""
    return (result.float().cpu().numpy() if isinstance(result, Tensor) else np.asarray(result)).astype(np.float32)
