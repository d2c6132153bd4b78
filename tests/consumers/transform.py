"""Rewrites graphs by a tool: `python transform.py TOOL from.onnx to.onnx ...`."""

import sys

import onnx


def onnxslim(source, target):
    import onnxslim

    onnxslim.slim(source, target)


def onnxsim(source, target):
    import onnxsim

    simple, same = onnxsim.simplify(onnx.load(source))
    assert same, "the simplified graph gives something else"
    onnx.save(simple, target)


def float16(source, target):
    from onnxconverter_common import float16

    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def quantize_dynamic(source, target):
    from onnxruntime.quantization import quantize_dynamic

    # It takes ONNX's Attention for ONNX Runtime's operator of that name.
    operator = any(node.op_type == "Attention" for node in onnx.load(source).graph.node)
    quantize_dynamic(source, target, op_types_to_quantize=["MatMul"] if operator else None)


def quant_pre_process(source, target):
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(source, target, skip_symbolic_shape=True)


if __name__ == "__main__":
    tool, *files = sys.argv[1:]
    for source, target in zip(files[::2], files[1::2], strict=True):
        globals()[tool](source, target)
