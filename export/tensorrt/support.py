"""Whether TensorRT's ONNX parser takes a graph: its operators and their types, as published.

`operators.json` holds what `docs/operators.md` of onnx-tensorrt says of TensorRT 10.15.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, shape_inference

from ..builder import PLUGIN_DOMAIN
from .plugin import NODES

_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "FP32", TensorProto.FLOAT16: "FP16", TensorProto.BFLOAT16: "BF16", TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8", TensorProto.INT32: "INT32", TensorProto.INT64: "INT64", TensorProto.BOOL: "BOOL",
    TensorProto.DOUBLE: "FP64",
}  # fmt: skip
_UNKNOWN = "of an unknown type"


def published() -> dict[str, Any]:
    """The published table: `source`, `tensorrt`, `opsets` (lowest and highest) and `operators` with their types."""
    table: dict[str, Any] = json.loads((files(__package__) / "operators.json").read_text())
    return table


def unsupported(model: ModelProto) -> list[str]:
    """What in a graph TensorRT does not take, a line each; empty if it takes all of it."""
    table = published()
    opset = next(each.version for each in model.opset_import if each.domain == "")
    lowest, highest = table["opsets"]
    wrong = [] if lowest <= opset <= highest else [f"opset {opset} is not one of {lowest} to {highest}"]
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    wrong += dict.fromkeys(_wrong_nodes(inferred.graph, table["operators"], {}))
    # Behind an operator that is not known, types aren't either.
    return [line for line in wrong if _UNKNOWN not in line] or wrong


def _wrong_nodes(graph: GraphProto, operators: dict[str, str], outer: dict[str, int]) -> Iterator[str]:
    types = outer | {each.name: each.data_type for each in graph.initializer}
    types |= {e.name: e.type.tensor_type.elem_type for e in (*graph.input, *graph.value_info, *graph.output)}
    for node in graph.node:
        if node.domain == PLUGIN_DOMAIN and node.op_type in NODES:
            continue
        if node.domain or node.op_type not in operators:
            yield f"the operator {node.domain or 'ONNX'}::{node.op_type} is not supported"
            continue
        for name in filter(None, node.input):
            kind = _NAMES.get(types.get(name, TensorProto.UNDEFINED), _UNKNOWN)
            if kind not in operators[node.op_type].split():
                yield f"{node.op_type} takes {operators[node.op_type]}, and {name} is {kind}"
        if node.op_type == "Loop":
            yield "Loop must not scan outputs of a length that is known only at run time"
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _wrong_nodes(attribute.g, operators, types)
