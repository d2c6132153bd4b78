"""What `gem-fast export` writes, by format: each a function that returns what to show."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table

from ..terminal import console

if TYPE_CHECKING:
    from gem_fast.export.verdict import Comparison


def write_onnx(model: Any, out: Path, options: Any, **_: Any) -> list[RenderableType]:
    """ONNX graphs for ONNX Runtime and others."""
    from gem_fast.export import ExportError, export_onnx

    if options.attention == "plugin":
        raise ExportError("attention plugin runs in TensorRT only; take --format tensorrt, or ort, onnx or portable")
    return checks(export_onnx(model, out, options))


def write_tensorrt(model: Any, out: Path, options: Any, *, max_batch: int, **_: Any) -> list[RenderableType]:
    """ONNX graphs for TensorRT and, where it is, engines."""
    from gem_fast.export.tensorrt.export import export_tensorrt

    written = export_tensorrt(model, out, options, max_batch, tell=console.print)
    lines = checks(written.manifest)
    if written.missing:
        return [*lines, f"no engine was built: {written.missing}", f"where it is, run in {out}:", *written.commands]
    return [*lines, *(f"built {engine}" for engine in written.engines)]


def write_triton_server(
    model: Any, out: Path, options: Any, *, max_batch: int, instances: int, queue_delay: int, **_: Any
) -> list[RenderableType]:
    """A model repository for NVIDIA Triton Inference Server."""
    from gem_fast.export.model_config import Serving
    from gem_fast.export.triton_server import export_triton_server

    serving = Serving(max_batch_size=max_batch, instances=instances, queue_delay=queue_delay)
    lines = checks(export_triton_server(model, out, options, serving))
    return [*lines, f"tritonserver --model-repository={out.resolve() / 'models'}"]


def write_pt2(model: Any, out: Path, options: Any, **_: Any) -> list[RenderableType]:
    """An AOTInductor package of the image encoder."""
    from gem_fast.export import ExportError
    from gem_fast.export.pt2 import export_pt2

    if options.attention != "portable":
        raise ExportError("a pt2 package has torch's own attention; leave out attention")
    return checks(export_pt2(model, out, options))


def checks(manifest: dict[str, Any]) -> list[RenderableType]:
    """The comparisons with torch as a table, if there were any."""
    from gem_fast.export.verdict import Comparison

    return [comparison_table([Comparison(**row) for row in manifest["check"]])] if manifest["check"] else []


def comparison_table(comparisons: list["Comparison"]) -> Table:
    """A line for each comparison with torch, narrow enough for 80 columns."""
    table = Table(title="compared with torch in float32", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in ("output", "size", "input"):
        table.add_column(name, overflow="fold")
    for name in ("largest\ndiff.", "relative\nerror", "\nbound", "equal\nlabels", "\nleast", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for each in comparisons:
        labels = ("", "") if each.labels is None else (f"{each.labels:.2%}", f"{each.least_labels:.2%}")
        table.add_row(
            f"head: {each.output}" if each.graph == "head.onnx" else each.output,
            each.size or "",
            f"{each.batch} {each.input}",
            *(f"{value:.1e}" for value in (each.absolute, each.relative, each.bound)),
            *labels,
            "ok" if each.holds else "wrong",
            style=None if each.holds else "red",
        )
    return table


FORMATS: dict[str, tuple[str, Callable[..., list[RenderableType]]]] = {
    # name: the attention when none is asked for, and the writer
    "onnx": ("ort", write_onnx),
    "tensorrt": ("onnx", write_tensorrt),
    "triton-server": ("ort", write_triton_server),
    "pt2": ("portable", write_pt2),
}
