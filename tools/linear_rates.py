"""Rates of ViT-B/16's linear layers in float32, by our own product and oneDNN's: `python -m tools.linear_rates`.

In turns, over weights that take turns too, as in a forward: from one use to the next they leave the caches.
"""

import time
from collections import defaultdict
from itertools import product
from statistics import median

import torch
from gem_fast.bench.machine import machine_line
from gem_fast.bench.tables import markdown_table
from gem_fast.kernels import linear, prepacked
from gem_fast.kernels.linear import in_panels

from gem_fast.terminal import say

ROWS = (785, 1576)  # of one image at 448², of eight at 224²
LAYERS = ((768, 2304, None), (768, 768, None), (768, 3072, "gelu"), (3072, 768, None))
WEIGHTS, ROUNDS = 12, 36


def rates(rows: int, inputs: int, outputs: int, activation: str | None) -> list[str]:
    """A row of the table: GFLOP/s of both, medians, and the median of the ratios turn by turn."""
    weights = [torch.randn(outputs, inputs) / inputs**0.5 for _ in range(WEIGHTS)]
    ways = {"panels": [in_panels(each) for each in weights], "oneDNN": [prepacked(each) for each in weights]}
    x, bias, seconds = torch.randn(1, rows, inputs), torch.randn(outputs), defaultdict[str, list[float]](list)
    for turn, (name, each) in product(range(ROUNDS), ways.items()):
        weight = each[turn % WEIGHTS]
        if weight is None:
            raise SystemExit("this CPU has no product over panels")
        start = time.perf_counter()
        linear(x, weight, bias, activation)
        seconds[name].append(time.perf_counter() - start)
    work = 2e-9 * rows * inputs * outputs
    ratio = median(b / a for a, b in zip(seconds["panels"], seconds["oneDNN"], strict=True))
    return [
        f"{rows}×{inputs}×{outputs} {activation or ''}".strip(),
        *(f"{work / median(each):.0f}" for each in seconds.values()),
        f"{ratio:.2f}×",
    ]


def main() -> None:
    """Print the table."""
    with torch.inference_mode():
        rows = [rates(rows, *layer) for rows, layer in product(ROWS, LAYERS)]
    say("\n".join([machine_line(), "", *markdown_table(["product", "panels, GFLOP/s", "oneDNN", "ratio"], rows)]))


if __name__ == "__main__":
    main()
