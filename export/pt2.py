"""The image encoder as an AOTInductor package: compiled by torch.export and Inductor, run without Python's model code.

The attention is `scaled_dot_product_attention`: a package with the native operations of this project would need the
project wherever it runs.
"""

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch._inductor
from torch import Tensor, nn

from gem_fast.errors import ExportError
from gem_fast.runtime.agreement import Comparison
from gem_fast.runtime.facts import ExportFacts, FileFacts
from gem_fast.runtime.folder import file_sha256
from gem_fast.runtime.manifest import Manifest, size_name, write_manifest

from .comparison import agreed, compare
from .export_options import ExportOptions
from .folders import whole_folder
from .plain import plain_torch

if TYPE_CHECKING:
    from gem_fast import GemModel
    from gem_fast.towers.vit import GemVisionTransformer

_LARGEST_BATCH = 1024


class ImageEncoder(nn.Module):
    """Normalised pixels `[batch, 3, H, W]` to L2-normalised patch features `[batch, h, w, E]`, for one size."""

    def __init__(self, vision: "GemVisionTransformer", size: tuple[int, int]) -> None:
        super().__init__()
        self.vision = at_size(vision, size)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vision(pixels).patches


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


def export_pt2(model: "GemModel", out: Path, options: ExportOptions) -> Manifest:
    """Compile the image encoder for the device that the model is on, and compare each package with the engine.

    Args:
        model: loaded in float32, on the device that the packages are for.
        out: the folder. It appears whole, and only if the comparison holds; an earlier export there is replaced.
        options: `sizes`, a package for each, whose batch is free; and `dtype`.

    Returns:
        The manifest, as `manifest.json` holds it.

    Raises:
        ExportError: there is no compiler, an option doesn't fit, or the features differ from the engine's.
    """
    from .onnx_export import describe, require_packages

    require_packages()
    if any((options.opset, options.dynamic_size, options.original, options.quantize, options.with_preprocess)):
        raise ExportError("a pt2 package has sizes and a dtype; the other options are for graphs")
    if model.device.type == "cpu":
        check_compiler()
    plain = plain_torch(model.vision, options.dtype)
    sizes = options.grid_sizes(model.defaults.size, model.vision.config.patch_size)
    made = ExportFacts("pt2", options.dtype, sizes, device=model.device.type)
    files: dict[str, FileFacts] = {}
    comparisons: list[Comparison] = []
    with whole_folder(out) as folder:
        for size in sizes:
            name = f"image_encoder_{size_name(size)}.pt2" if len(sizes) > 1 else "image_encoder.pt2"
            compile_package(plain, folder / name, size)
            comparisons += compare_package(model, plain, folder / name, size)
            files[name] = FileFacts("image_encoder_pt2", file_sha256(folder / name), size)
        manifest = replace(describe(model, made), files=files, check=agreed(comparisons))
        write_manifest(folder, manifest)
    return manifest


def compile_package(vision: "GemVisionTransformer", path: Path, size: tuple[int, int]) -> None:
    """Write the package of the image encoder for pixels of this height and width."""
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    encoder = ImageEncoder(vision, size).eval()
    with torch.no_grad():
        example = _pixels(vision, 2, size)
        program = torch.export.export(encoder, (example,), dynamic_shapes={"pixels": {0: batch}})
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


@torch.inference_mode()
def compare_package(
    model: "GemModel", plain: "GemVisionTransformer", package: Path, size: tuple[int, int]
) -> Iterator[Comparison]:
    """Patch features of 1 and 3 images against the engine's; in a lower type they may lose twice what plain does."""
    loaded = torch._inductor.aoti_load_package(str(package))
    for count in (1, 3):
        pixels = _pixels(model.vision, count, size)
        where: dict[str, Any] = {
            "graph": package.name,
            "output": "patch_features",
            "size": size_name(size),
            "batch": count,
        }
        truth = model.features(pixels).cpu()
        found = compare(loaded(pixels).cpu(), truth, input="noise", **where)
        if plain.position_embedding.dtype == torch.float32:
            yield found
        else:
            yield found.loosened(compare(plain(pixels).patches.cpu(), truth, input="noise", **where))


def _pixels(vision: "GemVisionTransformer", count: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, *size, generator=generator).to(vision.position_embedding.device)


def check_compiler() -> None:
    """Raise ExportError if there is no C++ compiler where Inductor looks for one."""
    import torch._inductor.config

    names = [name for name in torch._inductor.config.cpp.cxx if name]
    if not any(shutil.which(name) for name in names):
        raise ExportError(
            f"a pt2 package is compiled by a C++ compiler, and there is none ({', '.join(names)}); "
            "install g++, or name yours in the environment variable CXX"
        )
