"""Self-self attention as plugin nodes of an ONNX graph, and the same nodes as functions that any runtime computes."""

from collections.abc import Mapping
from typing import Any

from onnx import FunctionProto, ModelProto, helper, parser

from gem_fast.errors import ExportError
from gem_fast.method import Method

from ..builder import PLUGIN_DOMAIN
from ..gem_attention import inverse_temperature
from ..layers import Layers
from .plugin import NODES, PADDING


def plugin_gem(
    layers: Layers, method: Method, normed: str, projections: Mapping[str, str], heads: int, width: int
) -> str:
    """Eq. 3-7 of GEM by our TensorRT plugins, as `gem_attention.decomposed_gem` by attentions."""
    op, qkv = layers.graph.op, projections["qkv"]
    if width > 128:
        raise ExportError(f"the plugins take heads of up to 128 channels, and these have {width}; use attention onnx")
    attributes: dict[str, Any] = {
        "domain": PLUGIN_DOMAIN, "plugin_namespace": PLUGIN_DOMAIN, "plugin_version": "1", "aot": 1, "heads": heads,
        "width": width, "projections": sum(1 << "qkv".index(letter) for letter in method.projections),
    }  # fmt: skip
    c = inverse_temperature(layers, method, normed, width)
    if method.adaptive:
        c = op("Reshape", c, layers.graph.constant([-1]))
    else:
        c = op("Expand", c, op("Shape", normed, start=0, end=1))
    units = layers.typed(op("GemNormalize", qkv, **attributes), rank=5)
    for _ in range(method.iterations):
        units = layers.typed(op("GemRefine", units, c, qkv, **attributes), rank=5)
    mean = layers.typed(op("GemAssign", units, qkv, c, **attributes), rank=3)
    return mean if method.average else op("Mul", mean, layers.scalar(len(method.pairs)))


def computable(model: ModelProto) -> ModelProto:
    """The model with a function for each kind of plugin node, so that ONNX Runtime computes what TensorRT would."""
    nodes = {node.op_type: node for node in model.graph.node if node.domain == PLUGIN_DOMAIN}
    first = next(iter(nodes.values()))
    values = {each.name: helper.get_attribute_value(each) for each in first.attribute}
    opset = next(each.version for each in model.opset_import if each.domain == "")
    made = ModelProto()
    made.CopyFrom(model)
    made.functions.extend(
        _function(kind, opset, values["heads"], values["width"], values["projections"]) for kind in NODES
    )
    return made


def _function(kind: str, opset: int, heads: int, width: int, projections: int) -> FunctionProto:
    """One plugin in float32, on rows without their padding, which is put back as zeros."""
    from gem_fast.kernels.attention.triton.tiles import split_width

    chosen = [i for i in range(3) if projections >> i & 1]
    beyond = sum(split_width(width)) - width
    split = f"""
        shape = Constant <value_ints = [0, 0, 3, {heads}, {width}]> ()
        apart = Reshape (qkv, shape)
        N = Shape <start = 1, end = 2> (qkv)
    """
    weights = f"""
        zero = Constant <value_ints = [0]> ()
        rows_axis = Constant <value_ints = [3, 4]> ()
        width = Constant <value_ints = [{width}]> ()
        ends = Concat <axis = 0> (N, width)
        starts = Concat <axis = 0> (zero, zero)
        inside = Slice (units, starts, ends, rows_axis)
        p = Cast <to = 1> (inside)
        transposed = Transpose <perm = [0, 1, 2, 4, 3]> (p)
        dots = MatMul (p, transposed)
        column = Constant <value_ints = [-1, 1, 1, 1, 1]> ()
        slope = Reshape (inverse_temperature, column)
        logits = Mul (dots, slope)
        weights = Softmax <axis = -1> (logits)
    """
    unit = f"""
        last = Constant <value_ints = [-1]> ()
        norm = ReduceL2 <keepdims = 1> (wide, last)
        least = Constant <value_float = 1e-12> ()
        divisor = Max (norm, least)
        unit = Div (wide, divisor)
        one_less = Constant <value_ints = [{PADDING - 1}]> ()
        multiple = Constant <value_ints = [{PADDING}]> ()
        more = Add (N, one_less)
        tiles = Div (more, multiple)
        padded = Mul (tiles, multiple)
        rest = Sub (padded, N)
        none = Constant <value_ints = [0, 0, 0, 0, 0, 0, 0, 0]> ()
        beyond = Constant <value_ints = [{beyond}]> ()
        pads = Concat <axis = 0> (none, rest, beyond)
        whole = Pad (unit, pads)
        result = CastLike (whole, qkv)
    """
    bodies = {
        "GemNormalize": f"""(qkv) => (result) {{ {split}
            index = Constant <value_ints = {chosen}> ()
            some = Gather <axis = 2> (apart, index)
            rows = Transpose <perm = [0, 2, 3, 1, 4]> (some)
            wide = Cast <to = 1> (rows) {unit} }}""",
        "GemRefine": f"""(units, inverse_temperature, qkv) => (result) {{
            N = Shape <start = 1, end = 2> (qkv) {weights}
            wide = MatMul (weights, p) {unit} }}""",
        "GemAssign": f"""(units, qkv, inverse_temperature) => (result) {{ {split} {weights}
            two = Constant <value_ints = [2]> ()
            values = Gather <axis = 2> (apart, two)
            rows = Transpose <perm = [0, 2, 3, 1, 4]> (values)
            v = Cast <to = 1> (rows)
            assigned = MatMul (weights, v)
            one = Constant <value_ints = [1]> ()
            mean = ReduceMean <keepdims = 0> (assigned, one)
            tokens = Transpose <perm = [0, 2, 1, 3]> (mean)
            flat = Constant <value_ints = [0, 0, {heads * width}]> ()
            merged = Reshape (tokens, flat)
            result = CastLike (merged, qkv) }}""",
    }
    return parser.parse_function(f'<opset_import: ["" : {opset}], domain: "{PLUGIN_DOMAIN}"> {kind} {bodies[kind]}')
