"""What the gate times, each through what both sides have in common: the package's public functions.

This runs in the processes of both sides, as the package `gate_bench` of the working tree: whatever it needs of gem_fast
is imported inside a function, and what an older side lacks raises ImportError or AttributeError there.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..providers import Loaded, Provider, Subject
from ..worker import main

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


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _kernel(name: str, *arguments: Any, **settings: Any) -> Call:
    from gem_fast import kernels

    return partial(getattr(kernels, name), *arguments, **settings)


def _attention(name: str, dtype: torch.dtype) -> Call:
    """The 12 heads of a ViT-B/16 at 448×448."""
    temperature = (torch.tensor([3.0]),) if name == "self_self_attention" else ()
    return _kernel(name, _random(1, 785, 3, 12, 64).to(dtype), *temperature)


def _layer_norm() -> Call:
    return _kernel("layer_norm_and_temperature", _random(1, 785, 768), torch.ones(768), torch.zeros(768), 1e-5, 64)


def _labels() -> Call:
    return _kernel("decode_labels", _random(150, 28, 28) * 0.02 + 0.2, SIDE, logit_scale=100.0, threshold=0.0)


def _heatmaps() -> Call:
    return _kernel("decode_heatmaps", _random(20, 28, 28) * 0.02 + 0.2, SIDE)


def _model(name: str, dtype: str = "float32") -> Any:
    import gem_fast

    torch.manual_seed(0)
    return gem_fast.load(name, None if name == "gem-tiny" else "random", dtype=dtype)


def _forward(name: str, dtype: str, size: int) -> Call:
    return partial(_model(name, dtype).features, _random(1, 3, size, size))


def _text() -> Call:
    """New words in each call, since what is encoded once is remembered."""
    model, numbers = _model("ViT-B-16"), count()
    return lambda: model.encode_text([f"thing {next(numbers)}" for _ in range(16)])


def _reading() -> Call:
    from gem_fast.images import load_image

    return lambda: np.asarray(load_image(PHOTO))


def _preprocessing() -> Call:
    from gem_fast.images import load_image
    from gem_fast.preprocess import to_pixels

    return partial(to_pixels, load_image(PHOTO), SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


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


class Operated(Loaded):
    """An operation as a provider; its features are the first call's result: later ones may be of other words."""

    def __init__(self, _: Provider, subject: Subject, __: str, threads: int | None) -> None:
        import gem_fast

        ours = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0]).resolve()
        if ours not in Path(gem_fast.__file__).resolve().parents:
            raise RuntimeError(f"this process imported {gem_fast.__file__}, not what lies in {ours}")
        if threads:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        self.call = next(each for each in OPERATIONS if each.name == subject.name).make()
        self.first: Any = None

    def take(self, pixels: np.ndarray) -> None:
        """An operation makes its own input."""

    @torch.inference_mode()
    def run(self) -> None:
        result = self.call()
        self.first = result if self.first is None else self.first

    def features(self) -> np.ndarray:
        """As float32; of several results the first, as labels without their confidences."""
        result = self.first[0] if isinstance(self.first, tuple) else self.first
        array = result.float().cpu().numpy() if isinstance(result, Tensor) else np.asarray(result)
        return array.astype(np.float32)


if __name__ == "__main__":
    main(Operated)
