"""How time grows with the size of the input, held against the operations that were counted."""

from collections.abc import Iterator, Sequence

from .records import Row


def growth(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Time per counted operation relative to the smallest size: 1 where time grows as the work does.

    Returns:
        By provider with its case, such as `engine float32, ViT-B-16, batch 1, latency`: the ratio by size, the smallest
        first. Medians of the rounds; cases of one size are left out.
    """
    costs: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.seconds and row.extra.get("flops") and row.params.get("mode") in ("latency", "throughput"):
            case = f"{row.provider}, {row.params['model']}, batch {row.params['batch']}, {row.params['mode']}"
            costs.setdefault(case, {})[row.params["size"]] = row.at(0.5) / row.extra["flops"]
    return {
        case: {size: by_size[size] / by_size[min(by_size)] for size in sorted(by_size)}
        for case, by_size in costs.items()
        if len(by_size) > 1
    }


def growth_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The same in words, a line a provider; `spread` is the largest change between any two sizes."""
    for case, ratios in growth(rows).items():
        listed = ", ".join(f"{size}² {value:.2f}" for size, value in ratios.items())
        spread = max(ratios.values()) / min(ratios.values())
        yield f"time per counted FLOP, {case}: {listed} (spread {spread:.2f}×)"
