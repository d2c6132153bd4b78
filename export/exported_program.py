"""The image encoder as a plain file of `torch.export`: operators of torch alone, for what compiles or reads those."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gem_fast.runtime.manifest import Manifest

from .export_options import ExportOptions
from .program import Package, export_packages, traced

if TYPE_CHECKING:
    from gem_fast import GemModel
    from gem_fast.towers.vit import GemVisionTransformer


def export_program(model: "GemModel", out: Path, options: ExportOptions) -> Manifest:
    """Write the image encoder as `torch.export` has it; arguments and errors as in `export_packages`."""
    return export_packages(model, out, options, Package("exported-program", "image_encoder_program", _write, _load))


def _write(vision: "GemVisionTransformer", path: Path, size: tuple[int, int]) -> None:
    torch.export.save(traced(vision, size), path)


def _load(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(path).module()
