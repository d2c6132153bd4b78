"""The report's plots, drawn with matplotlib as PNG: the waterfall of techniques, and time by resolution."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .measure import ratio
from .records import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#3565a8", "#d1622b", "#3f8f5b", "#8a5aa6", "#b03a48", "#6b6b6b", "#c29a1f", "#2c9aa0")
_LINES: dict[str, dict[str, Any]] = {
    "float32": {"linestyle": "-", "marker": "o"},
    "bfloat16": {"linestyle": "--", "marker": "s"},
    "float16": {"linestyle": ":", "marker": "^"},
}
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}


def plots(rows: Sequence[Row]) -> Iterator[tuple[str, "Figure"]]:
    """Names and figures of those plots that the rows have something for."""
    require_matplotlib()
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        for name, draw in (("waterfall", _waterfall), ("resolution", _resolution)):
            figure = draw([row for row in rows if row.seconds and "mode" in row.params])
            if figure:
                yield name, figure


def require_matplotlib() -> None:
    """ValueError, with what to install, where plots can't be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError("plots need matplotlib: pip install 'gem_fast[bench]'") from error


def to_png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _new(width: float, height: float, columns: int = 1) -> tuple["Figure", Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def _waterfall(rows: list[Row]) -> "Figure | None":
    """Milliseconds an image after each technique, and how many times faster than the first."""
    steps = [row for row in rows if row.params["mode"] == "waterfall"]
    if len(steps) < 2:
        return None
    steps = [row for row in steps if row.group == steps[0].group]
    figure, axes = _new(9, 0.9 + 0.42 * len(steps))
    middle = np.array([row.at(0.5) for row in steps]) * 1e3
    spread = [middle - [row.at(0.2) * 1e3 for row in steps], [row.at(0.8) * 1e3 for row in steps] - middle]
    axes.barh(range(len(steps)), middle, xerr=np.maximum(spread, 0), color=_COLOURS[0], height=0.62, ecolor="#222222")
    for place, row in enumerate(steps):
        times = ratio(steps[0].seconds, row.seconds)
        end = (row.at(0.8) * 1e3, place)
        axes.annotate(f"{times.median:.2f}×", end, (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(steps)), [row.params["name"] for row in steps])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, max(row.at(0.8) for row in steps) * 1.18e3)
    params = steps[0].params
    axes.set_xlabel(f"ms a forward, {params['model']}, {params['batch']} × {params['size']}² (whiskers: 20-80%)")
    return figure


def _of_sizes(rows: list[Row]) -> list[Row]:
    """The rows of the smallest batch at which a provider has several sizes; none if there is no such."""
    rows = [row for row in rows if row.params["mode"] != "waterfall"]
    rows = [row for row in rows if row.params["model"] == rows[0].params["model"]]
    for batch in sorted({row.params["batch"] for row in rows}):
        chosen = [row for row in rows if row.params["batch"] == batch]
        if any(count > 1 for count in Counter(row.provider for row in chosen).values()):
            return chosen
    return []


def _by_provider(rows: list[Row]) -> Iterator[tuple[str, dict[str, Any], list[Row]]]:
    """Each provider's rows with its style: a colour for what computes, line and marker for the type."""
    names = list(dict.fromkeys(row.params["name"] for row in rows))
    for provider in dict.fromkeys(row.provider for row in rows):
        line = sorted((row for row in rows if row.provider == provider), key=lambda row: row.params["size"])
        colour = _COLOURS[names.index(line[0].params["name"]) % len(_COLOURS)]
        yield provider, _LINES[line[0].params["dtype"]] | {"color": colour}, line


def _plain_numbers(axis: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten, written out."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _resolution(rows: list[Row]) -> "Figure | None":
    """Seconds a batch against the side of the input, with the counted operations, and the memory that it adds."""
    chosen = _of_sizes(rows)
    if not chosen:
        return None
    figure, (left, right) = _new(10, 4.2, 2)
    lines = [each for each in _by_provider(chosen) if len(each[2]) > 1]
    for name, style, line in lines:
        left.plot([row.params["size"] for row in line], [row.at(0.5) for row in line], **style, label=name)
        memory = [(row.params["size"], row.extra["added_mb"]) for row in line if row.extra.get("added_mb")]
        if memory:
            right.plot(*zip(*memory, strict=True), **style)
    widest = max((line for *_, line in lines), key=len)
    work = np.array([row.extra["flops"] for row in widest])
    scaled = work * np.median([row.at(0.5) / row.extra["flops"] for row in widest])
    left.plot([row.params["size"] for row in widest], scaled, ":", color="#222222", label="counted operations, scaled")
    for axes, label in ((left, "seconds a batch"), (right, "MB that a forward adds to the weights")):
        axes.set(xscale="log", yscale="log", xlabel=f"side in pixels, batch {chosen[0].params['batch']}", ylabel=label)
        sizes = sorted({row.params["size"] for *_, line in lines for row in line})
        axes.set_xticks(sizes, [str(size) for size in sizes], rotation=45)
        axes.set_xticks([], minor=True)
        _plain_numbers(axes.yaxis)
    figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    return figure
