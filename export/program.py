"""The image encoder as a program of `torch.export`, for one size and any batch, with attention by plain torch."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gem_fast.errors import ExportError
from gem_fast.runtime.agreement import Comparison
from gem_fast.runtime.facts import ExportFacts, FileFacts
from gem_fast.runtime.folder import file_sha256
from gem_fast.runtime.manifest import Manifest, size_name, write_manifest

from .comparison import OUTPUTS, agreed, compare_encoded
from .export_options import ExportOptions
from .folders import whole_folder
from .plain import plain_torch
from .usual_torch import usual_torch

if TYPE_CHECKING:
    from gem_fast import GemModel
    from gem_fast.towers.vit import GemVisionTransformer

LARGEST_BATCH = 1024
Encoded = Tensor | tuple[Tensor, Tensor]
Encode = Callable[[Tensor], Encoded]


class ImageEncoder(nn.Module):
    """Normalised pixels `[batch, 3, H, W]` to L2-normalised patch features `[batch, h, w, E]`, for one size.

    With feature surgery a pair: these, and CLIP's own L2-normalised image embedding `[batch, E]`.
    """

    def __init__(self, vision: "GemVisionTransformer", size: tuple[int, int], feature_surgery: bool = False) -> None:
        super().__init__()
        self.vision = at_size(vision, size)
        self.feature_surgery = feature_surgery

    def forward(self, pixels: Tensor) -> Encoded:
        features = self.vision(pixels, original=self.feature_surgery)
        return (features.patches, features.original_class) if self.feature_surgery else features.patches


def at_size(vision: "GemVisionTransformer", size: tuple[int, int]) -> "GemVisionTransformer":
    """The same model with its position embedding resampled once for this size, and attention by plain torch."""
    patch = vision.config.patch_size
    grid = (size[0] // patch, size[1] // patch)
    fixed = copy.copy(vision)
    fixed._parameters = dict(vision._parameters)
    fixed.config = replace(vision.config, grid=grid)
    fixed.backend = "sdpa"
    fixed.position_embedding = nn.Parameter(vision.positions(*grid), requires_grad=False)
    return fixed


def traced(
    vision: "GemVisionTransformer", size: tuple[int, int], feature_surgery: bool = False
) -> torch.export.ExportedProgram:
    """The program for pixels of this height and width."""
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    encoder = ImageEncoder(vision, size, feature_surgery).eval()
    with torch.no_grad():
        example = example_pixels(vision, 2, size)
        return torch.export.export(encoder, (example,), dynamic_shapes={"pixels": {0: batch}})


def example_pixels(vision: "GemVisionTransformer", count: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, *size, generator=generator).to(vision.position_embedding.device)


@dataclass(frozen=True)
class Package:
    """A kind of file that holds the image encoder for one size.

    Attributes:
        format: its name in the manifest.
        role: of its files in the manifest.
        write: the model, the path, the size and whether for feature surgery to a file.
        load: the file to a function of pixels on a device.
    """

    format: str
    role: str
    write: Callable[["GemVisionTransformer", Path, tuple[int, int], bool], None]
    load: Callable[[Path, torch.device], Encode]


@usual_torch()
def export_packages(model: "GemModel", out: Path, options: ExportOptions, kind: Package) -> Manifest:
    """Write a package for each size for the device that the model is on, and compare each with the engine.

    Args:
        model: loaded in float32, on the device that the packages are for.
        out: the folder. It appears whole, and only if the comparison holds; an earlier export there is replaced.
        options: `sizes`, a package for each, whose batch is free; and `dtype`.
        kind: of packages.

    Raises:
        ExportError: an option doesn't fit, or the features differ from the engine's.
    """
    from .onnx_export import describe, require_packages

    require_packages()
    if any((options.opset, options.dynamic_size, options.original, options.integers, options.with_preprocess)):
        raise ExportError(f"the format {kind.format} has sizes and a dtype; the other options are for graphs")
    plain = plain_torch(model.vision, options.dtype)
    sizes = options.grid_sizes(model.defaults.size, model.vision.config.patch_size)
    described = describe(model, ExportFacts(kind.format, options.dtype, sizes, device=model.device.type))
    files: dict[str, FileFacts] = {}
    comparisons: list[Comparison] = []
    with whole_folder(out) as folder:
        for size in sizes:
            name = f"image_encoder_{size_name(size)}.pt2" if len(sizes) > 1 else "image_encoder.pt2"
            kind.write(plain, folder / name, size, model.feature_surgery)
            comparisons += compare_package(model, plain, kind, folder / name, size)
            files[name] = FileFacts(kind.role, file_sha256(folder / name), size)
        manifest = replace(described, files=files, check=agreed(comparisons))
        write_manifest(folder, manifest)
    return manifest


@torch.inference_mode()
def compare_package(
    model: "GemModel", plain: "GemVisionTransformer", kind: Package, path: Path, size: tuple[int, int]
) -> Iterator[Comparison]:
    """Each output for 1 and 3 images against the engine's; in a lower type they may lose twice what plain does."""
    loaded = kind.load(path, model.device)
    lower = plain if plain.position_embedding.dtype != torch.float32 else None
    for count in (1, 3):
        pixels = example_pixels(model.vision, count, size)
        where: dict[str, Any] = {"graph": path.name, "size": size_name(size), "batch": count, "input": "noise"}
        found = loaded(pixels)
        results = dict(zip(OUTPUTS, found if model.feature_surgery else [found], strict=False))
        yield from compare_encoded(results, pixels, model.vision, lower, **where)
