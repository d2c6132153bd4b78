"""Runs the cases of a file by a runtime for Python: `python consume.py openvino|onnxruntime cases.json`."""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from exchange import read_tensors, write_tensors


def openvino_runner(graph, shapes=None):
    import openvino

    read = openvino.Core().read_model(graph)
    if shapes:
        read.reshape(shapes)
    compiled = openvino.Core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [name for output in compiled.outputs for name in output.names]
    return lambda inputs: (lambda given: {name: np.array(given[name]) for name in names})(compiled(inputs))


def fixed_openvino_runner(graph):
    """Compiled for the shapes of what comes."""
    return lambda inputs: openvino_runner(graph, {name: list(value.shape) for name, value in inputs.items()})(inputs)


def onnxruntime_runner(graph):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def tvm_runner(graph):
    """Compiled by LLVM for the shapes of what comes."""

    def run(inputs):
        import onnx
        import tvm
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        model = onnx.load(graph)
        module = from_onnx(model, shape_dict={name: list(value.shape) for name, value in inputs.items()})
        machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
        outputs = machine["main"](*map(tvm.runtime.tensor, inputs.values()))
        return {told.name: value.numpy() for told, value in zip(model.graph.output, outputs, strict=True)}

    return run


RUNNERS = {
    "tvm": tvm_runner,
    "openvino": openvino_runner,
    "openvino-fixed": fixed_openvino_runner,
    "onnxruntime": onnxruntime_runner,
}


def main(runner, cases):
    for case in json.loads(Path(cases).read_text(encoding="utf-8")):
        folder = Path(case["outputs"])
        folder.mkdir()
        try:
            outputs = runner(case["graph"])(read_tensors(case["inputs"]))
        except Exception as error:
            (folder / "error.txt").write_text(str(error), encoding="utf-8")
        else:
            (folder / "outputs.json").write_text(json.dumps(write_tensors(folder, outputs)), encoding="utf-8")


if __name__ == "__main__":
    main(RUNNERS[sys.argv[1]], sys.argv[2])
