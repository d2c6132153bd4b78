"""The largest error of each method's features on whole models: `python -m tests.towers.methods_at_full_size`.

Minutes of float64, so that the suite has smaller shapes (`test_methods.py`) and this is run by hand.
"""

import argparse

import torch

import gem_fast
from tests.towers.test_methods import ours, truth
from tests.towers.test_vit import MODELS, error, pixels

SIZES = ((224, 224), (448, 448), (320, 480))
BOUND = 2e-6


def main() -> None:
    """Print a line for each model, method and size, and fail beyond the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=("B32", "B16"))
    parser.add_argument("--method", action="append", choices=tuple(gem_fast.methods()))
    parser.add_argument("--backend", help="cpu, sdpa or reference; the engine's own choice by default")
    chosen = parser.parse_args()
    worst = 0.0
    for name in chosen.model or ("B32", "B16"):
        assert MODELS[name]["vision_cfg"]["layers"] == 12
        for method in chosen.method or gem_fast.methods():
            found = []
            for shape in ((1, *size) for size in SIZES):
                with torch.inference_mode():
                    patches = ours(name, method, backend=chosen.backend)(pixels(*shape)).patches.flatten(1, 2)
                found.append(error(patches, truth(name, method, *shape)))
            worst = max(worst, *found)
            told = ", ".join(f"{h}×{w} {each:.1e}" for (h, w), each in zip(SIZES, found, strict=True))
            print(f"{name} {method}: {told}", flush=True)
    print(f"largest {worst:.1e}, allowed {BOUND:.0e}")
    raise SystemExit(worst > BOUND)


if __name__ == "__main__":
    main()
