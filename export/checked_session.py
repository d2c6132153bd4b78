"""A written graph in ONNX Runtime, after ONNX's own checks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gem_fast.errors import ExportError

from .builder import PLUGIN_DOMAIN
from .emulation import widen_bfloat16


def open_session(path: Path, emulated: bool = False, shown: Sequence[str] = ()) -> Any:
    """The graph on ONNX Runtime's CPU as the runtime opens it, after ONNX's own checks.

    Args:
        path: the file.
        emulated: run bfloat16 through float32.
        shown: float32 values inside the graph to give as outputs too, behind its own.

    Raises:
        ExportError: the file is no valid graph, or ONNX Runtime does not run it.
    """
    import onnx
    import onnxruntime

    from gem_fast.runtime.runtime_options import RuntimeOptions

    try:
        # By path, since a graph with more than 2 GB of weights beside it is no single protobuf.
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker, protobuf and shape inference raise kinds of their own
        raise ExportError(f"{path} is not a valid ONNX graph: {error}") from error
    usual = RuntimeOptions(threads=torch.get_num_threads())
    try:
        with _runnable(path, emulated, shown) as source:
            return onnxruntime.InferenceSession(str(source), usual.session_options(), providers=usual.providers())
    except Exception as error:
        raise ExportError(f"ONNX Runtime {onnxruntime.__version__} can't run {path}: {error}") from error


@contextmanager
def _runnable(path: Path, emulated: bool, shown: Sequence[str]) -> Iterator[Path]:
    """What ONNX Runtime takes for the graph: without bfloat16 if emulated, and functions in place of plugins."""
    import onnx
    from onnx import TensorProto, helper

    from .tensorrt.nodes import computable

    model = onnx.load(path, load_external_data=False)
    plugins = any(each.domain == PLUGIN_DOMAIN for each in model.opset_import)
    if not (emulated or plugins or shown):
        yield path
        return
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in shown)
    if emulated:
        widen_bfloat16(model)
    if plugins:
        model = computable(model)
    beside = path.with_suffix(".check.onnx")  # where its weights are found
    try:
        beside.write_bytes(model.SerializeToString())
        yield beside
    finally:
        beside.unlink(missing_ok=True)
