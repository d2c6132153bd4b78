"""What the linear layers of an image encoder take over a folder of images: the ranges of static int8."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from gem_fast.batch.sources import Listing
from gem_fast.errors import ExportError
from gem_fast.images import read_image
from gem_fast.preprocess import normalised
from gem_fast.runtime.facts import Size

from .export_options import ExportOptions
from .packed import packed_again
from .quantization import Ranges, observing

if TYPE_CHECKING:
    from gem_fast.model import GemModel

LEAST = 8  # images: fewer say little of what a layer may be given
_MOST = 64
_SHOWN = 8  # that an export is compared on, besides its own


@dataclass(frozen=True)
class Calibration:
    """What a folder of images says.

    Attributes:
        ranges: of the layers; None without a folder.
        images: some of them.
    """

    ranges: Ranges | None = None
    images: tuple[Image.Image, ...] = ()


def calibrated(model: "GemModel", options: ExportOptions) -> Calibration:
    """The calibration that the options ask for, over the sizes of the export.

    Raises:
        ExportError: the folder is none, or has too few images. ImageError: an image of it can't be read.
    """
    if options.calibrate is None:
        return Calibration()
    images = _images(Path(options.calibrate))
    side = max(1, round(model.defaults.size / model.vision.config.patch_size)) * model.vision.config.patch_size
    ranges: dict[str, tuple[float, float]] = {}
    for size in options.grid_sizes(model.defaults.size, model.vision.config.patch_size) or ((side, side),):
        for name, (low, high) in _observed(model, options, size, images):
            least, most = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(least, low), max(most, high)
    return Calibration(ranges, images[:_SHOWN])


def _images(folder: Path) -> tuple[Image.Image, ...]:
    if not folder.is_dir():
        raise ExportError(f"calibrate must be a folder of images like those to come, and {folder} is none")
    found = [read_image(source.path) for source in islice(Listing([folder]), _MOST)]
    if len(found) < LEAST:
        raise ExportError(f"{folder} has {len(found)} images; calibrate by {LEAST} or more, of the kind that will come")
    return tuple(found)


def _observed(
    model: "GemModel", options: ExportOptions, size: Size, images: tuple[Image.Image, ...]
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Each layer's range in each image, by a graph in float32."""
    from .checked_session import open_session

    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "observing.onnx"
        names = _write(model, options, size, path)
        session = open_session(path)
        for image in images:
            pixels = normalised(model.resized(image, size)[None], model.mean, model.std)
            ends = session.run([f"range.{i}" for i in range(len(names))], {"pixels": pixels})
            for name, (low, high) in zip(names, ends, strict=True):
                if not np.isfinite((low, high)).all():
                    raise ExportError(f"the model gives no finite numbers for an image of {options.calibrate}")
                yield name, (float(low), float(high))


def _write(model: "GemModel", options: ExportOptions, size: Size, path: Path) -> list[str]:
    """Write the graph, its weights beside it; returns the layers of its outputs."""
    from .attention import KINDS
    from .builder import GraphBuilder, Weights
    from .image_encoder import write_image_encoder
    from .layers import Layers

    names: list[str] = []
    graph = GraphBuilder(options.chosen_opset, Weights(path.with_suffix(".weights")))
    layers = Layers(graph, KINDS[options.attention], block_product=observing(names))
    beside: dict[str, Any] = {"original": options.original, "feature_surgery": model.feature_surgery}
    with packed_again(model):
        write_image_encoder(layers, model.vision, size, **beside)
    path.write_bytes(graph.model("observing", {}).SerializeToString())
    return names
