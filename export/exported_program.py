"""The image encoder as a plain file of `torch.export`: operators of torch alone, for what compiles or reads those."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gem_fast.runtime.manifest import Manifest

from .export_options import ExportOptions
from .program import Encode, Package, export_packages, traced

if TYPE_CHECKING:
    from gem_fast import GemModel
    from gem_fast.towers.vit import GemVisionTransformer


def export_program(model: "GemModel", out: Path, options: ExportOptions) -> Manifest:
    """Write the image encoder as `torch.export` has it; arguments and errors as in `export_packages`."""
    return export_packages(model, out, options, Package("exported-program", "image_encoder_program", _write, _load))


def _write(vision: "GemVisionTransformer", path: Path, size: tuple[int, int], feature_surgery: bool) -> None:
    torch.export.save(traced(vision, size, feature_surgery), path)


def _load(path: Path, _: torch.device) -> Encode:
    return torch.export.load(path).module()
