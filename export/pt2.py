"""The image encoder as an AOTInductor package: compiled by torch.export and Inductor, run without Python's model code.

The attention is `scaled_dot_product_attention`: a package with the native operations of this project would need the
project wherever it runs.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
import torch._inductor
from torch import Tensor

from gem_fast.errors import ExportError
from gem_fast.runtime.manifest import Manifest

from .export_options import ExportOptions
from .program import Encode, Package, example_pixels, export_packages, traced

if TYPE_CHECKING:
    from gem_fast import GemModel
    from gem_fast.towers.vit import GemVisionTransformer

_ASKED = 'getenv("AOTI_RUNTIME_CHECK_INPUTS")'  # of the generated code, before it checks its inputs


def export_pt2(model: "GemModel", out: Path, options: ExportOptions) -> Manifest:
    """Compile the image encoder for the device that the model is on; arguments and errors as in `export_packages`.

    A package takes contiguous float32 pixels `[1..1024, 3, H, W]` on its device, and raises RuntimeError for others.

    Raises:
        ExportError: there is no compiler besides, or this torch writes packages that don't check their inputs.
    """
    if model.device.type == "cpu":
        check_compiler()
    return export_packages(model, out, options, Package("pt2", "image_encoder_pt2", compile_package, load_package))


def compile_package(
    vision: "GemVisionTransformer", path: Path, size: tuple[int, int], feature_surgery: bool = False
) -> None:
    """Write the package of the image encoder for pixels of this height and width."""
    program = traced(vision, size, feature_surgery)
    with checking_inputs():
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    pixels = example_pixels(vision, 2, size)
    check_refusal(load_package(path, pixels.device), pixels, path)


def load_package(path: Path, device: torch.device) -> Encode:
    """A function of pixels on that device, whichever GPU the package was compiled on."""
    return torch._inductor.aoti_load_package(str(path), device_index=-1 if device.index is None else device.index)


@contextmanager
def checking_inputs() -> Iterator[None]:
    """What is compiled inside checks its inputs, which torch compiles in but asks an environment variable about.

    A package that doesn't check reads a float16 image, or one of another size or layout, as if it were its own.
    """
    from torch._inductor import config
    from torch._inductor.codecache import AotCodeCompiler

    compile_code = AotCodeCompiler.compile

    def always(graph: Any, source: str, *rest: Any, **named: Any) -> Any:
        return compile_code(graph, source.replace(_ASKED, '"1"'), *rest, **named)

    # Where it has a lower bound that is 2, since Inductor takes a batch of 1 for a constant.
    unbounded = {"aot_inductor.check_lowerbound": False} if hasattr(config.aot_inductor, "check_lowerbound") else {}
    with patch.object(AotCodeCompiler, "compile", always), config.patch(unbounded):
        yield


def check_refusal(encode: Encode, pixels: Tensor, path: Path) -> None:
    """ExportError unless the package refuses the wrong inputs that can be read without harm."""
    for wrong in (pixels.contiguous(memory_format=torch.channels_last), pixels[..., None]):
        try:
            with muted():
                encode(wrong)
        except RuntimeError:
            continue
        raise ExportError(
            f"torch {torch.__version__} compiled {path.name} without a check of its inputs, so that wrong ones would "
            "give wrong features; take torch 2.13 or newer, or the format exported-program"
        )


@contextmanager
def muted() -> Iterator[None]:
    """Without what C++ writes to the standard error: a package prints there what it then raises."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def check_compiler() -> None:
    """Raise ExportError if there is no C++ compiler where Inductor looks for one."""
    import torch._inductor.config

    names = [name for name in torch._inductor.config.cpp.cxx if name]
    if not any(shutil.which(name) for name in names):
        raise ExportError(
            f"a pt2 package is compiled by a C++ compiler, and there is none ({', '.join(names)}); "
            "install g++, or name yours in the environment variable CXX"
        )
