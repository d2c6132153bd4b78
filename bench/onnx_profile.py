"""Where ONNX Runtime's time goes, by its own profile: `python -m gem_fast.bench.onnx_profile`.

The image encoder of ViT-B/16 with random weights on images of 448×448 in fp32, our graph beside plain exports of the
eager model; a table in Markdown. Operations are counted from the shapes that the profile tells.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch

from .bench_onnx import graph_file, plain_export
from .machine import machine_line

SIDE = 448
PRODUCTS, ATTENTION = "linear layers", "products of attention"
_KINDS = {
    "MultiHeadAttention": "fused attention",
    "Softmax": "softmax",
    "Transpose": "transpositions",
}


@dataclass
class Share:
    """Seconds and floating-point operations of one kind of node in one run."""

    seconds: float = 0.0
    flop: float = 0.0


@dataclass
class Profile:
    """A graph's runs by kind of node; `rest` is neither of those named."""

    shares: dict[str, Share] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def add(self, event: dict[str, Any], runs: int) -> None:
        name, flop = event["args"]["op_name"], operations(event["args"])
        kind = _KINDS.get(name) or ("rest" if not flop else PRODUCTS if _has_weight(event["args"]) else ATTENTION)
        share = self.shares.setdefault(kind, Share())
        share.seconds += event["dur"] / 1e6 / runs
        share.flop += flop / runs
        if kind == "rest":
            self.others[name] += event["dur"]

    @property
    def total(self) -> Share:
        shares = self.shares.values()
        return Share(sum(share.seconds for share in shares), sum(share.flop for share in shares))


def operations(node: dict[str, Any]) -> float:
    """Floating-point operations of the products in a node, a multiply-add being two; 0 if it has none.

    The profile does not list weights that ONNX Runtime has packed for itself.
    """
    (first, *_), (output, *_) = _shapes(node["input_type_shape"]) or [[]], _shapes(node["output_type_shape"]) or [[]]
    if node["op_name"] == "MultiHeadAttention":
        B, N, C = first
        return 4.0 * B * N * N * C
    if node["op_name"] == "Conv":
        # The steps of the patch embedding are its kernel, so that each input is read once.
        return 2.0 * prod(first) * output[1]
    if "MatMul" in node["op_name"] or node["op_name"] == "Gemm":
        # Rows of the output times the sum's length are the elements of the first input.
        return 2.0 * prod(first) * output[-1]
    return 0.0


def _has_weight(node: dict[str, Any]) -> bool:
    return node["op_name"] == "Conv" or all(len(shape) <= 2 for shape in _shapes(node["input_type_shape"])[1:])


def _shapes(typed: list[dict[str, list[int]]]) -> list[list[int]]:
    return [shape for each in typed for shape in each.values()]


def profile(path: Path, batch: int, runs: int) -> Profile:
    """Runs of a graph on a batch, after one that warms up."""
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "run"))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        pixels = np.random.default_rng(0).standard_normal((batch, 3, SIDE, SIDE)).astype(np.float32)
        for _ in range(runs + 1):
            session.run(None, {session.get_inputs()[0].name: pixels})
        events = json.loads(Path(session.end_profiling()).read_text())
    found = Profile()
    for event in _after_the_first(events):
        found.add(event, runs)
    return found


def _after_the_first(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Nodes of all runs but the first."""
    begin = min(event["ts"] + event["dur"] for event in events if event["name"] == "model_run")
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= begin:
            yield event


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=4, help="images in a run")
    parser.add_argument("--runs", type=int, default=3, help="runs whose mean is told")
    asked = parser.parse_args()
    graphs = {
        "ort": graph_file("ort", SIDE),
        "plain export": plain_export(asked.batch_size, SIDE),
        "plain export, both paths": plain_export(asked.batch_size, SIDE, both=True),
    }
    print(machine_line())
    print("| graph | nodes | s | GFLOP | GFLOP/s |\n|---|---|---|---|---|")
    for name, path in graphs.items():
        found = profile(path, asked.batch_size, asked.runs)
        kinds = sorted(found.shares, key=lambda kind: -found.shares[kind].seconds)
        for kind, share in [(kind, found.shares[kind]) for kind in kinds] + [("all", found.total)]:
            rate = f"{share.flop / share.seconds / 1e9:.0f}" if share.flop else ""
            print(f"| {name} | {kind} | {share.seconds:.3f} | {share.flop / 1e9:.0f} | {rate} |", flush=True)
        print(f"{name}: of the rest, {', '.join(each for each, _ in found.others.most_common(4))}")


if __name__ == "__main__":
    main()
