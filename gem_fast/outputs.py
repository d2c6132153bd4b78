"""What is written of a segmentation: a row for each kind of file. Needs no torch."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .png import label_png
from .rendering import palette


@dataclass(frozen=True)
class OutputKind:
    """A kind of file.

    Attributes:
        name: as `Segmentation.save` and a record's `files` have it.
        ending: of its file names.
        content: of a `Segmentation`.
        always: it is written whatever was asked for.
        once: all images of a run share it.
        by_scores: it takes more than the labels, which is all that some engines give.
    """

    name: str
    ending: str
    content: Callable[[Any], bytes]
    always: bool = False
    once: bool = False
    by_scores: bool = False


def png_bytes(picture: Image.Image) -> bytes:
    return _encoded(picture, "PNG", compress_level=3)


def _encoded(picture: Image.Image, format: str, **settings: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **settings)
    return buffer.getvalue()


def legend_bytes(legend: Mapping[str, Mapping[str, str]]) -> bytes:
    return json.dumps(legend, indent=1, ensure_ascii=False).encode(errors="backslashreplace")


def _heatmaps(result: Any) -> bytes:
    buffer = io.BytesIO()
    maps = result.heatmaps.astype(np.float16)
    np.savez_compressed(buffer, heatmaps=maps, scores=result.scores, classes=np.array(result.classes))
    return buffer.getvalue()


LABELS = OutputKind("labels", ".labels.png", lambda result: label_png(result.labels, palette(256)), always=True)
LEGEND = OutputKind("legend", ".legend.json", lambda result: legend_bytes(result.legend()), always=True, once=True)
HEATMAPS = OutputKind("heatmaps", ".heatmaps.npz", _heatmaps, by_scores=True)
# By format; WebP takes seven times as long as JPEG, and PNG thirty times.
OVERLAYS = {
    "jpeg": OutputKind("overlay", ".overlay.jpg", lambda result: _encoded(result.overlay(), "JPEG", quality=90)),
    "png": OutputKind("overlay", ".overlay.png", lambda result: png_bytes(result.overlay())),
    "webp": OutputKind("overlay", ".overlay.webp", lambda result: _encoded(result.overlay(), "WEBP", quality=80)),
}
KINDS = (*OVERLAYS.values(), LABELS, LEGEND, HEATMAPS)


def wanted_kinds(*, overlay: str | None, heatmaps: bool) -> tuple[OutputKind, ...]:
    """Overlays of a format if there is one, what is always written, and heat maps if wanted.

    Raises:
        ValueError: there is no such format.
    """
    if overlay is not None and overlay not in OVERLAYS:
        raise ValueError(f"overlays are written as {', '.join(OVERLAYS)}, got {overlay!r}")
    asked = {OVERLAYS.get(overlay or ""), HEATMAPS if heatmaps else None}
    return tuple(kind for kind in KINDS if kind.always or kind in asked)
