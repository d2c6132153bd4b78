"""What others make of exported graphs: each loads, agrees with ONNX Runtime to 1e-5 in float32, and gives its labels.

`make test-consumers` runs this, since it needs packages that nothing else does; they are kept in `build/consumers`.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gem_fast.export import ExportOptions, export_onnx
from gem_fast.export.segmenter_export import export_segmenter

import gem_fast
from gem_fast.demo import copy_samples
from tests.consumers.browser import find_browser, run_in_browser
from tests.consumers.consume import onnxruntime_runner
from tests.consumers.exchange import read_results, write_cases

HERE = Path(__file__).parent
HOME = HERE.parents[1] / "build" / "consumers"
WORDS = ["cat", "dog", "car", "tree"]
FLOAT32_ERROR = 1e-5  # the largest difference of what lies in -1..1
# The largest difference, and the least share of equal labels, of tools that round on purpose.
ROUNDED = {"float16": (5e-3, 0.995), "quantize_dynamic": (0.1, 0.95)}
# The same for images from bytes: a resized value half-way between two bytes is rounded as the sum's order has it.
TURNED = (5e-3, 0.999)
EXACT = ("onnxslim", "onnxsim", "quant_pre_process")
KINDS = {"ort": {}, "portable": {"attention": "portable"}, "onnx": {"attention": "onnx"}}


@pytest.fixture(scope="session")
def model():
    return gem_fast.load("gem-tiny")


@pytest.fixture(scope="session")
def folders(model, tmp_path_factory):
    """An export of each kind of attention, a segmenter in each, and one from bytes."""
    root = tmp_path_factory.mktemp("exports")
    query = model.query([("car", "automobile"), "cat", "house"], background=["tree"])
    for kind, options in KINDS.items():
        export_onnx(model, root / kind, ExportOptions(check=False, **options))
        export_segmenter(model, root / f"segmenter-{kind}", query, ExportOptions(check=False, **options), True)
    from_bytes = ExportOptions(check=False, with_preprocess=True)
    export_segmenter(model, root / "segmenter-bytes", query, from_bytes, with_scores=True)
    return root


@pytest.fixture(scope="session")
def cases(folders, model):
    """Graphs with inputs and what ONNX Runtime gives, by kind of attention."""
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((2, 3, 96, 96)).astype(np.float32)
    image = rng.integers(0, 256, (2, 70, 110, 3), dtype=np.uint8)
    tokens = {"token_ids": model.text.tokenizer([f"a photo of a {word}." for word in WORDS]).numpy()}
    settings = {"logit_scale": np.array(15, np.float32), "threshold": np.array(0.4, np.float32)}
    size = {"output_size": np.array([61, 103])}
    made = {}
    for kind in KINDS:
        encoder, texts = (folders / kind / f"{name}_encoder.onnx" for name in ("image", "text"))
        encoded = onnxruntime_runner(encoder)({"pixels": pixels}) | onnxruntime_runner(texts)(tokens)
        listed = [(encoder, {"pixels": pixels}), (texts, tokens)]
        for rows in ([[-1]], [[0, 1], [2, 2], [3, 3]]):
            scored = {**encoded, "synonyms": np.array(rows)}
            cosines = onnxruntime_runner(folders / kind / "cosines.onnx")(scored)
            listed += [
                (folders / kind / "cosines.onnx", scored),
                (folders / kind / "head.onnx", {**scored, **size, **settings}),
                (folders / kind / "heatmaps.onnx", {**cosines, **size}),
                (folders / kind / "labels.onnx", {**cosines, **size, **settings}),
            ]
        listed.append((folders / f"segmenter-{kind}" / "segmenter.onnx", {"pixels": pixels}))
        if kind == "ort":
            listed.append((folders / "segmenter-bytes" / "segmenter.onnx", {"image": image}))
        made[kind] = [
            {"graph": graph, "inputs": inputs, "truth": onnxruntime_runner(graph)(inputs)} for graph, inputs in listed
        ]
    return made


def check(cases, results, *rounded):
    """Each output within the error, and labels equal; a consumer's own error is shown."""
    for case, found in zip(cases, results, strict=True):
        error, labels = rounded or (TURNED if "image" in case["inputs"] else (FLOAT32_ERROR, 1.0))
        assert not isinstance(found, str), f"{case['graph']}: {found}"
        for name, truth in case["truth"].items():
            assert found[name].shape == truth.shape, (case["graph"], name)
            if name == "labels":
                assert (found[name] == truth).mean() >= labels, case["graph"]
            else:
                off = np.abs(found[name].astype(np.float64) - truth).max()
                assert off <= error, f"{case['graph']}: {name} is off by {off:.1e}"
        print(Path(case["graph"]).parent.name, Path(case["graph"]).name, "ok")


def python(*arguments, packages=None):
    path = {"PYTHONPATH": str(HOME / packages)} if packages else {}
    settings = {"env": {**os.environ, **path}, "cwd": HOME, "timeout": 120}  # where a tool may leave files of its own
    subprocess.run([sys.executable, *map(str, arguments)], check=True, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_openvino(cases, tmp_path, kind):
    write_cases(tmp_path / "cases.json", cases[kind])
    python(HERE / "consume.py", "openvino", tmp_path / "cases.json", packages="openvino")
    check(cases[kind], read_results(tmp_path / "cases.json"))


@pytest.mark.parametrize("kind", ["ort", "portable"])
def test_an_old_onnxruntime(cases, tmp_path, kind):
    """1.20, which knows opsets up to 21."""
    write_cases(tmp_path / "cases.json", cases[kind])
    python(HERE / "consume.py", "onnxruntime", tmp_path / "cases.json", packages="onnxruntime-old")
    check(cases[kind], read_results(tmp_path / "cases.json"))


@pytest.mark.parametrize("package", ["node", "web"])
@pytest.mark.parametrize("kind", KINDS)
def test_javascript(cases, tmp_path, kind, package):
    write_cases(tmp_path / "cases.json", cases[kind])
    command = ["node", HERE / "consume.mjs", package, tmp_path / "cases.json", HOME / "node"]
    subprocess.run(list(map(str, command)), check=True, timeout=120)
    check(cases[kind], read_results(tmp_path / "cases.json"))


def test_a_browser(cases, tmp_path):
    browser = find_browser()
    if browser is None:
        pytest.skip("there is no Chromium; onnxruntime-web has run in node alone")
    write_cases(tmp_path / "cases.json", cases["ort"])
    run_in_browser(browser, tmp_path / "cases.json", HOME / "node", 120)
    check(cases["ort"], read_results(tmp_path / "cases.json"))


@pytest.mark.parametrize("tool", [*EXACT, *ROUNDED])
def test_tools(cases, tmp_path, tool):
    """What a tool writes, under ONNX Runtime."""
    graphs = list(dict.fromkeys(case["graph"] for case in cases["ort"]))
    written = {graph: tmp_path / f"{i}.onnx" for i, graph in enumerate(graphs)}
    python(HERE / "transform.py", tool, *(path for pair in written.items() for path in pair), packages="tools")
    results = [onnxruntime_runner(written[case["graph"]])(case["inputs"]) for case in cases["ort"]]
    check(cases["ort"], results, *ROUNDED.get(tool, ()))


@pytest.fixture(scope="session")
def vocabulary(model, tmp_path_factory):
    """The folder that the examples speak of, an image, and the pixels of each name by the engine."""
    folder = tmp_path_factory.mktemp("examples")
    query = model.query(["car", "tree", "house"])
    export_segmenter(model, folder / "segmenter", query, ExportOptions(with_preprocess=True))
    image = folder / "image.png"
    copy_samples(folder)
    (folder / "car_tree_house.png").rename(image)
    labels = model.segment(str(image), ["car", "tree", "house"], resize="squash").labels
    return folder / "segmenter", image, np.bincount(labels.ravel(), minlength=4) / labels.size


@pytest.mark.parametrize("example", ["onnxruntime_segmenter.py", "openvino_segmenter.py", "node_segmenter.mjs"])
def test_an_example_counts_the_engines_pixels(vocabulary, example):
    folder, image, shares = vocabulary
    node = example.endswith(".mjs")
    command = ["node" if node else sys.executable, HERE.parents[1] / "examples" / example, folder, image]
    path = {"PYTHONPATH": str(HOME / "openvino")} if "openvino" in example else {}
    settings = {"cwd": HOME / "node", "env": {**os.environ, **path}, "timeout": 120, "check": True}
    told = subprocess.run(list(map(str, command)), capture_output=True, text=True, **settings).stdout.split()
    assert told[::2] == ["background", "car", "tree", "house"]
    counts = np.array(told[1::2], float)
    assert np.abs(counts / counts.sum() - shares).max() < 0.02
