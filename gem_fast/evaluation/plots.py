"""Pictures of sweeps and studies, by matplotlib (the extra `evaluation`)."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import missing_extra
from ..writing import make_room_for, write_whole


def make_room(path: Path) -> None:
    """Make sure, before what is drawn is computed, that a picture can be drawn and has a place.

    Raises:
        ModelError: matplotlib is missing. ValueError, OSError: the path is a folder, or can't lie where it would.
    """
    _figure_class()
    make_room_for(path)


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("drawing", "evaluation", error) from error
    return Figure


def figure(rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Any, Any]:
    """A figure without a screen, and its axes."""
    drawn = _figure_class()(layout="constrained", **settings)
    return drawn, drawn.subplots(rows, columns, squeeze=False)


def save(drawn: Any, path: Path) -> None:
    """As PNG, whole or not at all."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=100)
    write_whole(path, buffer.getvalue())


def draw_sweep(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """mIoU by setting, a line for each data set, model and method."""
    lines: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for row in rows:
        share = np.nan if row["miou"] is None else row["miou"]
        name = ", ".join((row["data"], row["model"], row["method"]))
        lines[name].append((row["settings"]["sweep"], 100 * share))
    drawn, axes = figure(figsize=(7, 4))
    axis = axes[0, 0]
    for name, points in lines.items():
        settings, values = zip(*points, strict=True)
        axis.plot(settings, values, "o-", label=name)
    axis.set_ylabel("mIoU in percent")
    axis.tick_params(axis="x", labelrotation=0 if len(settings) < 6 else 60)
    axis.legend()
    axis.grid(alpha=0.3)
    save(drawn, path)
