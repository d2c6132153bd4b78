"""What `gem-fast export` writes, by format: each a function that returns the lines to show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .terminal import console


def write_onnx(model: Any, out: Path, options: Any, **_: Any) -> list[str]:
    """ONNX graphs for ONNX Runtime and others."""
    from gem_fast.export import ExportError, export_onnx

    if options.attention == "plugin":
        raise ExportError("attention plugin runs in TensorRT only; take --format tensorrt, or ort, onnx or portable")
    return measured(export_onnx(model, out, options))


def write_tensorrt(model: Any, out: Path, options: Any, *, max_batch: int, **_: Any) -> list[str]:
    """ONNX graphs for TensorRT and, where it is, engines."""
    from gem_fast.export.tensorrt.export import export_tensorrt

    written = export_tensorrt(model, out, options, max_batch, tell=console.print)
    lines = measured(written.manifest)
    if written.missing:
        return [*lines, f"no engine was built: {written.missing}", f"where it is, run in {out}:", *written.commands]
    return [*lines, *(f"built {engine}" for engine in written.engines)]


def write_triton_server(
    model: Any, out: Path, options: Any, *, max_batch: int, instances: int, queue_delay: int, **_: Any
) -> list[str]:
    """A model repository for NVIDIA Triton Inference Server."""
    from gem_fast.export.model_config import Serving
    from gem_fast.export.triton_server import export_triton_server

    serving = Serving(max_batch_size=max_batch, instances=instances, queue_delay=queue_delay)
    lines = measured(export_triton_server(model, out, options, serving))
    return [*lines, f"tritonserver --model-repository={out.resolve() / 'models'}"]


def write_pt2(model: Any, out: Path, options: Any, **_: Any) -> list[str]:
    """An AOTInductor package of the image encoder."""
    from gem_fast.export import ExportError
    from gem_fast.export.pt2 import export_pt2

    if options.attention != "portable":
        raise ExportError("a pt2 package has torch's own attention; leave out attention")
    return measured(export_pt2(model, out, options))


def measured(manifest: dict[str, Any]) -> list[str]:
    """The differences that the check found."""
    return [f"{name}: {value}" for name, value in (manifest["check"] or {}).items()]


FORMATS: dict[str, tuple[str, Callable[..., list[str]]]] = {
    # name: the attention when none is asked for, and the writer
    "onnx": ("ort", write_onnx),
    "tensorrt": ("onnx", write_tensorrt),
    "triton-server": ("ort", write_triton_server),
    "pt2": ("portable", write_pt2),
}
