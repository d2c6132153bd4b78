"""Tensors in files that every language reads: `cases.json` names graphs with their inputs, raw bytes lie beside it."""

import json
from pathlib import Path

import numpy as np


def write_cases(path, cases):
    """Cases are dicts of `graph` and `inputs`; `outputs`, a folder for what the consumer gives, is added to each."""
    written = []
    for i, case in enumerate(cases):
        folder = path.parent / f"{path.stem}-{i}"
        folder.mkdir()
        written.append(
            {
                "graph": str(case["graph"]),
                "inputs": write_tensors(folder, case["inputs"]),
                "outputs": str(folder / "out"),
            }
        )
    path.write_text(json.dumps(written), encoding="utf-8")


def write_tensors(folder, tensors):
    """Raw files, and what to say of them in JSON."""
    folder.mkdir(exist_ok=True)
    told = {}
    for name, value in tensors.items():
        value = np.asarray(value)
        np.ascontiguousarray(value).tofile(folder / f"{name}.bin")
        told[name] = {"type": str(value.dtype), "dims": list(value.shape), "file": str(folder / f"{name}.bin")}
    return told


def read_tensors(told):
    return {name: np.fromfile(each["file"], each["type"]).reshape(each["dims"]) for name, each in told.items()}


def read_results(path):
    """What a consumer gave for each case, by output; the text of its error for one that it could not run."""
    results = []
    for case in json.loads(path.read_text(encoding="utf-8")):
        folder = Path(case["outputs"])
        error = folder / "error.txt"
        told = folder / "outputs.json"
        results.append(error.read_text() if error.exists() else read_tensors(json.loads(told.read_text())))
    return results
