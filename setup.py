"""Packages and their mapping, dependencies, and the `gem-fast` command."""

import platform
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

# These lie at the top of the repository and install as `gem_fast.kernels`, `gem_fast.export`, `gem_fast.bench`.
MAPPED = ("kernels", "export", "bench")
# Rooms of `kernels` with C++ of their own.
NATIVE = ("activation", "attention", "decoding", "int8", "layer_norm", "linear")


def packages() -> tuple[list[str], dict[str, str]]:
    """All packages, and the folder each comes from."""
    names, folders = find_packages(include=["gem_fast", "gem_fast.*"]), {}
    for top in MAPPED:
        for name in [top, *(f"{top}.{sub}" for sub in find_packages(top))]:
            names.append(f"gem_fast.{name}")
            folders[f"gem_fast.{name}"] = name.replace(".", "/")
    return names, folders


def extensions() -> list[Extension]:
    """The native CPU kernels, a plain C library; where it can't be built, the installation goes on without it."""
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        return []
    natives = [Path("kernels", *parts, "native") for parts in ((), *((room,) for room in NATIVE))]
    kernels = Extension(
        "gem_fast.kernels.cpu_native",
        sources=sorted(str(source) for native in natives for source in native.glob("*.cpp")),
        depends=sorted(str(header) for native in natives for header in native.glob("*.h")),
        # The instruction sets are chosen file by file in the sources, and at run time by what the CPU has.
        extra_compile_args=[
            *("-std=c++17", "-O3", "-g0", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
            "-ffp-contract=off",  # what is fused is written so: bits may not depend on how a head is cut
        ],
        language="c++",
        optional=True,
    )
    return [kernels]


NAMES, FOLDERS = packages()
OPEN_CLIP = ["open_clip_torch>=3.2", "ftfy>=6.1", "regex>=2022.1.18", "huggingface_hub>=0.25"]  # needs the others too
ENGINE = ["torch>=2.8", *OPEN_CLIP, "safetensors>=0.4"]
RUNTIME = ["onnxruntime>=1.20", "tokenizers>=0.20"]
# 1.23 is the last for Python 3.10; it runs no opset 24.
CHECKS = ['onnxruntime>=1.25; python_version >= "3.11"', 'onnxruntime>=1.23; python_version < "3.11"']
EXPORT = [*ENGINE, *RUNTIME, *CHECKS, "onnx>=1.19"]
TRANSFORMERS = ["transformers>=4.56", "tokenizers>=0.20"]
HEIC = ["pillow-heif>=0.16"]
JXL = ["pillow-jxl-plugin>=1.3"]
PARQUET = ["pyarrow>=20"]
COCO = ["pycocotools>=2.0.7"]

setup(
    name="gem_fast",
    version="0.1.0",
    description="Optimized inference for GEM: open-vocabulary segmentation from pretrained CLIP vision transformers",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=NAMES,
    package_dir=FOLDERS,
    ext_modules=extensions(),
    package_data={
        "gem_fast": [
            "py.typed",
            "embedded/*/*",
            "samples/*",
            "samples/masks/*",
            "evaluation/classes/*",
            "evaluation/held_out/*",
        ],
        "gem_fast.export.tensorrt": ["operators.json"],
    },
    # What the engine and the torch-free runtime share; each is an extra, so that deploying needs no torch.
    install_requires=["numpy>=1.24", "pillow>=12", "simplejpeg>=1.7", "isal>=1.5", "typer>=0.20", "rich>=13.8"],
    extras_require={
        "engine": ENGINE,
        "export": EXPORT,
        "runtime": RUNTIME,
        "runtime-gpu": ["onnxruntime-gpu[cuda,cudnn]>=1.21", "tokenizers>=0.20"],
        "transformers": TRANSFORMERS,
        "runtime-openvino": ["onnxruntime-openvino>=1.20", "tokenizers>=0.20"],
        "evaluation": ["matplotlib>=3.8", "scikit-learn>=1.4"],
        "heic": HEIC,
        "jxl": JXL,
        "parquet": PARQUET,
        "coco": COCO,
        "ray": ["ray[data]>=2.60,<2.61"],  # what was tested: checkpoints are beta there
        "bench": [*EXPORT, *PARQUET, "pytest>=8", "pytest-benchmark>=4", "matplotlib>=3.8", "openvino>=2025.3"],
        "dev": [
            *EXPORT,
            *TRANSFORMERS,
            "open_clip_torch>=3.3",
            "transformers>=5.1",  # what other families are held against
            *HEIC,
            *JXL,
            *PARQUET,
            *COCO,
            "pytest>=8",
            "pytest-benchmark>=4",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.11",
            "tritonclient>=2.50",  # carries the schema of Triton Inference Server's configurations
            "matplotlib>=3.8",
            "scikit-learn>=1.4",
            "torchmetrics>=1.4",  # what the metrics are held against
        ],
        "train": ["resvg-py"],
    },
    entry_points={"console_scripts": ["gem-fast = gem_fast.cli:main"]},
)
