"""Packages and their mapping, dependencies, and the `gem-fast` command."""

from setuptools import find_packages, setup

# `kernels` and `bench` lie at the top of the repository and install as `gem_fast.kernels`, `gem_fast.bench`.
MAPPED = ("kernels", "bench")


def packages() -> tuple[list[str], dict[str, str]]:
    """All packages, and the folder each comes from."""
    names, folders = find_packages(include=["gem_fast", "gem_fast.*"]), {}
    for top in MAPPED:
        for name in [top, *(f"{top}.{sub}" for sub in find_packages(top))]:
            names.append(f"gem_fast.{name}")
            folders[f"gem_fast.{name}"] = name.replace(".", "/")
    return names, folders


NAMES, FOLDERS = packages()

setup(
    name="gem_fast",
    version="0.1.0",
    description="Optimized inference for GEM: open-vocabulary segmentation from pretrained CLIP vision transformers",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=NAMES,
    package_dir=FOLDERS,
    package_data={
        "gem_fast": ["py.typed", "embedded/*/*", "samples/*", "samples/masks/*"],
    },
    install_requires=[
        "torch>=2.4",
        "open_clip_torch>=3.0",
        "numpy>=1.24",
        "pillow>=10.1",
        "safetensors>=0.4",
        "typer>=0.12",
        "rich>=13",
    ],
    extras_require={
        "bench": ["pytest>=8", "pytest-benchmark>=4"],
        "dev": ["pytest>=8", "pytest-benchmark>=4", "hypothesis>=6.100", "ruff>=0.6", "mypy>=1.11"],
        "train": ["resvg-py"],
    },
    entry_points={"console_scripts": ["gem-fast = gem_fast.cli:main"]},
)
