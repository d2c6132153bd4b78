"""Tools that change types or round weights read the types of a graph's values: inference finds all of them."""

import onnx
import pytest
from gem_fast.export import ExportOptions
from gem_fast.export.onnx_export import write_graphs
from onnx import TensorProto

import gem_fast

CHOICES = {
    "default": {},
    "both paths in float16": {"dtype": "float16", "original": True},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantize": "int8"},
    "operator": {"attention": "onnx"},
    "portable": {"attention": "portable"},
    "preprocessing": {"with_preprocess": True, "sizes": ((32, 40),)},
    "any size": {"dynamic_size": True},
    "opset 20": {"opset": 20},
}


@pytest.fixture(scope="module")
def model():
    return gem_fast.load("gem-tiny", gem_blocks=2)


@pytest.mark.parametrize("chosen", CHOICES)
def test_every_value_has_a_type(model, tmp_path, chosen):
    write_graphs(model, tmp_path, ExportOptions(**CHOICES[chosen]))
    for path in tmp_path.glob("*.onnx"):
        graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
        typed = {each.name: each.type.tensor_type for each in (*graph.value_info, *graph.output)}
        for node in graph.node:
            for name in node.output:
                assert name in typed, f"{path.name}: {name} has no type"
                assert typed[name].HasField("shape"), f"{path.name}: {name} has no rank"


def test_what_is_made_float32_follows_a_converter(model, tmp_path):
    """Converters to float16 change constants and leave the type in a Cast as it is."""
    write_graphs(model, tmp_path, ExportOptions(with_preprocess=True))
    for path in tmp_path.glob("*.onnx"):
        casts = [node for node in onnx.load(path).graph.node if node.op_type == "Cast"]
        assert all(each.attribute[0].i != TensorProto.FLOAT for each in casts), path.name
