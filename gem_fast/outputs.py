"""What is written of a segmentation: a row for each kind of file. Needs no torch."""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from .segmentation import Segmentation


@dataclass(frozen=True)
class OutputKind:
    """A kind of file.

    Attributes:
        name: as `Segmentation.save` and a record's `files` have it.
        ending: of its file names.
        content: of a segmentation.
        always: it is written whatever was asked for.
        once: all images of a run share it.
    """

    name: str
    ending: str
    content: Callable[["Segmentation"], bytes]
    always: bool = False
    once: bool = False


def png_bytes(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def legend_bytes(legend: Mapping[str, Mapping[str, str]]) -> bytes:
    return json.dumps(legend, indent=1, ensure_ascii=False).encode(errors="backslashreplace")


def _heatmaps(result: "Segmentation") -> bytes:
    buffer = io.BytesIO()
    maps = result.heatmaps.astype(np.float16)
    np.savez_compressed(buffer, heatmaps=maps, scores=result.scores, classes=np.array(result.classes))
    return buffer.getvalue()


LABELS = OutputKind("labels", ".labels.png", lambda result: png_bytes(result.label_image()), always=True)
LEGEND = OutputKind("legend", ".legend.json", lambda result: legend_bytes(result.legend()), always=True, once=True)
KINDS = (
    OutputKind("overlay", ".overlay.png", lambda result: png_bytes(result.overlay())),
    LABELS,
    LEGEND,
    OutputKind("heatmaps", ".heatmaps.npz", _heatmaps),
)


def wanted_kinds(names: Iterable[str] = ()) -> tuple[OutputKind, ...]:
    """The kinds that are always written, and those of these names.

    Raises:
        ValueError: there is no kind of a name.
    """
    asked = set(names)
    if unknown := asked - {kind.name for kind in KINDS}:
        known = ", ".join(kind.name for kind in KINDS)
        raise ValueError(f"no kind of output is called {', '.join(sorted(unknown))}; there are {known}")
    return tuple(kind for kind in KINDS if kind.always or kind.name in asked)
