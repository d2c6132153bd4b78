"""The image encoder as an AOTInductor package: compiled by torch.export and Inductor, run without Python's model code.

The attention is `scaled_dot_product_attention`: a package with the native operations of this project would need the
project wherever it runs.
"""

import copy
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch._inductor
from torch import Tensor, nn

if TYPE_CHECKING:
    from gem_fast import GemModel
    from gem_fast.vision import GemVisionTransformer

# Largest relative error against the engine: both round differently, in the type of the model.
BOUNDS = {torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 2e-2}
_LARGEST_BATCH = 1024


class ImageEncoder(nn.Module):
    """Normalised pixels `[batch, 3, H, W]` to L2-normalised patch features `[batch, h, w, E]`, for one size."""

    def __init__(self, vision: "GemVisionTransformer", size: tuple[int, int]) -> None:
        super().__init__()
        self.vision = at_size(vision, size)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vision(pixels).patches


@dataclass(frozen=True)
class Package:
    """A package that was written and run back.

    Attributes:
        path: the `.pt2` file.
        error: largest relative error of its patch features against the engine's, over batches of 1 and 3.
    """

    path: Path
    error: float


def at_size(vision: "GemVisionTransformer", size: tuple[int, int]) -> "GemVisionTransformer":
    """The same model with its position embedding resampled once for this size, and attention by plain torch."""
    patch = vision.config.patch_size
    grid = (size[0] // patch, size[1] // patch)
    fixed = copy.copy(vision)
    fixed._parameters = dict(vision._parameters)
    fixed.config = replace(vision.config, grid=grid)
    fixed.options = replace(vision.options, backend="sdpa")
    fixed.position_embedding = nn.Parameter(vision.positions(*grid), requires_grad=False)
    return fixed


def export_pt2(model: "GemModel", path: Path, size: tuple[int, int]) -> Package:
    """Compile the image encoder for the device that the model is on, write the package and compare it with the engine.

    Args:
        model: the model, in the type and on the device that the package is for.
        path: the file to write, ending in `.pt2`. It appears whole, and only if the comparison holds.
        size: height and width of the pixels, multiples of the patch. The batch is free.

    Raises:
        ValueError: no compiler, a wrong size or ending, or a package whose features differ from the engine's.
    """
    if path.suffix != ".pt2":
        raise ValueError(f"a package's name must end in .pt2, got {path}")
    patch = model.vision.config.patch_size
    if min(size) < patch or size[0] % patch or size[1] % patch:
        raise ValueError(f"size {size[0]}x{size[1]}: both sides must be positive multiples of the patch, {patch}")
    if model.device.type == "cpu":
        check_compiler()
    pixels = _pixels(model, 2, size)
    with torch.no_grad():
        batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
        program = torch.export.export(
            ImageEncoder(model.vision, size).eval(), (pixels,), dynamic_shapes={"pixels": {0: batch}}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        written = Path(torch._inductor.aoti_compile_and_package(program, package_path=str(Path(folder, path.name))))
        error = compare(model, written, size)
        bound = BOUNDS[model.dtype]
        if not error <= bound:
            raise ValueError(f"the package's patch features differ from the engine's by {error:.1e}, more than {bound}")
        written.chmod(0o644)
        os.replace(written, path)
    return Package(path, error)


def compare(model: "GemModel", package: Path, size: tuple[int, int]) -> float:
    """Largest relative error of a package's patch features against the engine's, over batches of 1 and 3."""
    loaded = torch._inductor.aoti_load_package(str(package))
    errors = []
    for count in (1, 3):
        pixels = _pixels(model, count, size)
        ours, theirs = model.features(pixels), loaded(pixels)
        if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
            raise ValueError(f"the package gives {theirs.dtype} {list(theirs.shape)}, not {list(ours.shape)}")
        errors.append(((theirs - ours).norm() / ours.norm()).item())
    return max(errors)


def _pixels(model: "GemModel", count: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(count)).to(model.device)


def check_compiler() -> None:
    """Raise ValueError if there is no C++ compiler where Inductor looks for one."""
    import torch._inductor.config

    names = [name for name in torch._inductor.config.cpp.cxx if name]
    if not any(shutil.which(name) for name in names):
        raise ValueError(
            f"a pt2 package is compiled by a C++ compiler, and there is none ({', '.join(names)}); "
            "install g++, or name yours in the environment variable CXX"
        )
