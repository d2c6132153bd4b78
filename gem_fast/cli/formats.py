"""What `gem-fast export` writes, by format: each a function that returns what to show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table

from ..terminal import console

if TYPE_CHECKING:
    from gem_fast.runtime.agreement import Comparison
    from gem_fast.runtime.manifest import Manifest


@dataclass(frozen=True)
class Vocabulary:
    """Classes with their words, what else the images may show, and whether the graph gives scores."""

    classes: Mapping[str, list[str]]
    background: tuple[str, ...]
    with_scores: bool


def write_onnx(model: Any, out: Path, options: Any, **_: Any) -> list[RenderableType]:
    """ONNX graphs for ONNX Runtime and others."""
    from gem_fast.export import ExportError, export_onnx

    if options.attention == "plugin":
        raise ExportError("attention plugin runs in TensorRT only; take --format tensorrt, or ort, onnx or portable")
    return checks(export_onnx(model, out, options))


def write_tensorrt(model: Any, out: Path, options: Any, *, max_batch: int, **_: Any) -> list[RenderableType]:
    """ONNX graphs for TensorRT and, where it is, engines."""
    from gem_fast.export.tensorrt.tensorrt_export import export_tensorrt

    written = export_tensorrt(model, out, options, max_batch, tell=console.print)
    lines = checks(written.manifest)
    if written.missing:
        return [*lines, f"no engine was built: {written.missing}", f"where it is, run in {out}:", *written.commands]
    return [*lines, *(f"built {engine}" for engine in written.engines)]


def write_triton_server(
    model: Any, out: Path, options: Any, *, max_batch: int, instances: int, queue_delay: int
) -> list[RenderableType]:
    """A model repository for NVIDIA Triton Inference Server."""
    from gem_fast.export.model_config import Serving
    from gem_fast.export.triton_server import export_triton_server

    serving = Serving(max_batch_size=max_batch, instances=instances, queue_delay=queue_delay)
    lines = checks(export_triton_server(model, out, options, serving))
    return [*lines, f"tritonserver --model-repository={out.resolve() / 'models'}"]


def write_pt2(model: Any, out: Path, options: Any, **_: Any) -> list[RenderableType]:
    """An AOTInductor package of the image encoder."""
    from gem_fast.export.pt2 import export_pt2

    _check_attention("pt2", options)
    return checks(export_pt2(model, out, options))


def write_program(model: Any, out: Path, options: Any, **_: Any) -> list[RenderableType]:
    """The image encoder as a program of torch.export."""
    from gem_fast.export.exported_program import export_program

    _check_attention("exported-program", options)
    return checks(export_program(model, out, options))


def write_segmenter(model: Any, out: Path, options: Any, vocabulary: Vocabulary) -> list[RenderableType]:
    """One ONNX graph for a fixed vocabulary."""
    from gem_fast.export.segmenter_export import export_segmenter

    query = model.query(vocabulary.classes, background=vocabulary.background)
    return checks(export_segmenter(model, out, query, options, vocabulary.with_scores))


def read_vocabulary(
    prompts: Sequence[str], file: Path | None, background: Sequence[str], with_scores: bool
) -> Vocabulary | None:
    """The fixed vocabulary that the options name, as `gem-fast segment` reads them; None for none."""
    from gem_fast.prompts import read_prompt_file

    classes = {name: [name] for name in prompts} | (read_prompt_file(file) if file else {})
    if not classes and (background or with_scores):
        raise ValueError("--background and --with-scores go with --prompt or --prompts-file")
    return Vocabulary(classes, tuple(background), with_scores) if classes else None


def _check_attention(format: str, options: Any) -> None:
    if options.attention != FORMATS[format].attention:
        raise ValueError(f"the format {format} has torch's own attention; leave out attention")


@dataclass(frozen=True)
class Format:
    """A format: the attention when none is asked for, and the writer."""

    attention: str
    write: Callable[..., list[RenderableType]]


FORMATS = {
    "onnx": Format("ort", write_onnx),
    "tensorrt": Format("onnx", write_tensorrt),
    "triton-server": Format("ort", write_triton_server),
    "pt2": Format("portable", write_pt2),
    "exported-program": Format("portable", write_program),
}
_ON_DEVICE = ("pt2", "exported-program")  # whose files are for a device


def write_export(
    out: Path,
    format: str,
    loading: dict[str, Any],
    *,
    sizes: Sequence[str],
    attention: str | None,
    vocabulary: Vocabulary | None,
    serving: dict[str, int],
    **options: Any,
) -> list[RenderableType]:
    """Load a model and write it in a format.

    Args:
        out: the folder.
        format: one of `FORMATS`.
        loading: what `gem_fast.load` takes.
        sizes, attention, **options: those of `ExportOptions`, a size as `448x640`, the attention None for the format's.
        vocabulary: the classes of a graph for these alone, or None.
        serving: max_batch, instances and queue_delay.

    Returns:
        What to show.

    Raises:
        DisagreementError: the graphs do not agree with torch. ValueError, OSError: something else is wrong.
    """
    from gem_fast.export import ExportOptions
    from gem_fast.export.export_options import parse_size

    if loading["device"] != "cpu" and format not in _ON_DEVICE:
        raise ValueError(f"device is for the formats {' and '.join(_ON_DEVICE)}; {format} needs none")
    if vocabulary and format != "onnx":
        raise ValueError(
            f"a fixed vocabulary is for the format onnx, got {format}; leave out --prompt and --prompts-file"
        )
    chosen = ExportOptions(
        sizes=tuple(map(parse_size, sizes)), attention=attention or FORMATS[format].attention, **options
    )
    from gem_fast import load

    if vocabulary:
        return write_segmenter(load(**loading), out, chosen, vocabulary)
    return FORMATS[format].write(load(**loading), out, chosen, **serving)


def checks(manifest: "Manifest") -> list[RenderableType]:
    """The comparisons with torch as a table, if there were any."""
    return [comparison_table(manifest.check)] if manifest.check else []


def comparison_table(comparisons: Sequence["Comparison"]) -> Table:
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
