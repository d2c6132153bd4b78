"""A stand-in for Triton Inference Server: it holds requests against configurations, and runs models by ONNX Runtime."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime

KINDS = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32, "UINT8": np.uint8}
_HEADER = "Inference-Header-Content-Length"  # bytes of JSON, behind which tensors lie as they are


@contextmanager
def stand_in(models, configs):
    """Serve the repository, whose parsed configurations are given by model; yields HOST:PORT."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            length = int(self.headers[_HEADER])
            told, name = json.loads(body[:length]), self.path.split("/")[3]
            try:
                status, head, content = 200, *answered(models, configs, name, told, body[length:])
            except AssertionError as error:
                status, head, content = 400, json.dumps({"error": str(error)}).encode(), b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(head) + len(content)))
            self.send_header(_HEADER, str(len(head)))
            self.end_headers()
            self.wfile.write(head + content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def answered(models, configs, name, told, raw):
    """JSON and tensors of the answer to a request with binary inputs."""
    feed = {}
    for each in told["inputs"]:
        size = each["parameters"]["binary_data_size"]
        feed[each["name"]] = np.frombuffer(raw[:size], KINDS[each["datatype"]]).reshape(each["shape"])
        raw = raw[size:]
    check(configs[name], feed)
    results = run(models, configs, name, feed)
    outputs, content = [], b""
    for each in told["outputs"]:
        value = results[each["name"]]
        kind = next(kind for kind, dtype in KINDS.items() if value.dtype == dtype)
        parameters = {"binary_data_size": value.nbytes}
        shape = list(value.shape)
        outputs.append({"name": each["name"], "datatype": kind, "shape": shape, "parameters": parameters})
        content += value.tobytes()
    return json.dumps({"model_name": name, "model_version": "1", "outputs": outputs}).encode(), content


def check(config, feed):
    """AssertionError unless the tensors are those that the configuration declares."""
    declared = {each.name: each for each in config.input}
    assert feed.keys() == declared.keys(), f"{config.name} takes {sorted(declared)}, got {sorted(feed)}"
    for name, value in feed.items():
        kind = (
            declared[name].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[declared[name].data_type]
        )
        assert KINDS[kind.name.removeprefix("TYPE_")] == value.dtype, f"{name} is {kind.name}, got {value.dtype}"
        shape, dims = value.shape[config.max_batch_size > 0 :], declared[name].dims
        fits = len(shape) == len(dims) and all(dim in (-1, length) for dim, length in zip(dims, shape, strict=True))
        assert fits, f"{name} is {list(dims)}, got {list(shape)}"


def run(models, configs, name, feed):
    """All outputs of a model, or of the last of an ensemble's."""
    config = configs[name]
    if config.platform != "ensemble":
        session = onnxruntime.InferenceSession(models / name / "1" / "model.onnx")
        scalars = {each.name for each in session.get_inputs() if not each.shape}  # declared as vectors of length one
        given = {key: value.reshape(()) if key in scalars else value for key, value in feed.items()}
        return dict(zip([each.name for each in session.get_outputs()], session.run(None, given), strict=True))
    tensors = dict(feed)
    for step in config.ensemble_scheduling.step:
        inputs = {key: tensors[value] for key, value in step.input_map.items()}
        check(configs[step.model_name], inputs)
        results = run(models, configs, step.model_name, inputs)
        tensors |= {value: results[key] for key, value in step.output_map.items()}
    return tensors
