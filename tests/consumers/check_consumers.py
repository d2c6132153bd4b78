"""What others make of exported graphs: each loads, agrees with ONNX Runtime to 1e-5 in float32, and gives its labels.

`make test-consumers` runs this, since it needs packages that nothing else does; they are kept in `build/consumers`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from gem_fast.export import ExportOptions, export_onnx
from gem_fast.export.segmenter_export import export_segmenter
from gem_fast.export.triton_server import export_triton_server

import gem_fast
from gem_fast.demo import SAMPLES, copy_samples
from gem_fast.images import read_image
from gem_fast.preprocess import normalised
from tests.consumers import told
from tests.consumers.browser import find_browser, run_in_browser, show_page
from tests.consumers.consume import onnxruntime_runner
from tests.consumers.exchange import read_results, write_cases
from tests.consumers.told import HOME, KINDS, ROOT
from tests.consumers.triton_stand_in import stand_in
from tests.export.triton_schema import read_configs, read_schema

HERE = Path(__file__).parent
NODE = HOME / "node"
IMAGE = SAMPLES / "car_tree_house.png"
WORDS = ["cat", "dog", "car", "tree"]
OPTIONS = {"ort": {}, "portable": {"attention": "portable"}, "onnx": {"attention": "onnx"}}
FLOAT32 = (1e-5, 1.0)  # the largest difference of what lies in -1..1, and the least share of equal labels
# Those of tools that round on purpose, and of OpenVINO for images from bytes: it has no float64 for resizing's weights.
ROUNDED = {"float16": (5e-3, 0.995), "quantize_dynamic": (0.1, 0.95)}
NARROW = (5e-3, 0.999)
EXACT = ("onnxslim", "onnxsim", "quant_pre_process")
# What the old ONNX Runtime says of graphs of opset 23.
TOO_NEW = "Unsupported model IR version: 11, max supported IR version: 10"
# What TVM says: it does not know the one operator, and takes the other for ONNX Runtime's of the same name.
UNKNOWN_TO_TVM = {"ort": "operators are not supported for frontend ONNX: MultiHeadAttention", "onnx": "'num_heads'"}


@pytest.fixture(scope="session")
def model():
    return gem_fast.load("gem-tiny")


@pytest.fixture(scope="session")
def folders(model, tmp_path_factory):
    """An export of each kind of attention, and a segmenter in each from pixels and from bytes."""
    root = tmp_path_factory.mktemp("exports")
    query = model.query([("car", "automobile"), "cat", "house"], background=["tree"])
    for kind, options in OPTIONS.items():
        export_onnx(model, root / kind, ExportOptions(check=False, **options))
        for name, with_preprocess in (("segmenter", False), ("bytes", True)):
            chosen = ExportOptions(check=False, with_preprocess=with_preprocess, **options)
            export_segmenter(model, root / f"{name}-{kind}", query, chosen, with_scores=True)
    return root


@pytest.fixture(scope="session")
def cases(folders, model):
    """Graphs with inputs and what ONNX Runtime gives, by kind of attention."""
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((2, 3, 96, 96)).astype(np.float32)
    images = [
        rng.integers(0, 256, (count, *size, 3), dtype=np.uint8) for count, size in ((2, (70, 110)), (1, (301, 96)))
    ]
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
        listed += [(folders / f"bytes-{kind}" / "segmenter.onnx", {"image": image}) for image in images]
        made[kind] = [
            {"graph": graph, "inputs": inputs, "truth": onnxruntime_runner(graph)(inputs)} for graph, inputs in listed
        ]
    return made


def check(cases, results, bounds=FLOAT32, from_bytes=None):
    """Each output within the bounds, those for images from bytes apart; a consumer's own error is shown."""
    for case, found in zip(cases, results, strict=True):
        error, labels = (from_bytes or bounds) if "image" in case["inputs"] else bounds
        assert not isinstance(found, str), f"{case['graph']}: {found}"
        for name, truth in case["truth"].items():
            assert found[name].shape == truth.shape, (case["graph"], name)
            if name == "labels":
                assert (found[name] == truth).mean() >= labels, case["graph"]
            else:
                off = np.abs(found[name].astype(np.float64) - truth).max()
                print(Path(case["graph"]).parent.name, Path(case["graph"]).name, name, f"{off:.1e}")
                assert off <= error, f"{case['graph']}: {name} is off by {off:.1e}"


def python(*arguments, packages=None):
    path = {"PYTHONPATH": str(HOME / packages)} if packages else {}
    settings = {"env": {**os.environ, **path}, "cwd": HOME, "timeout": 120}  # where a tool may leave files of its own
    subprocess.run([sys.executable, *map(str, arguments)], check=True, **settings)


def version_of(folder, package):
    """The version of a package in a folder of build/consumers; skipped where pip has none for this Python."""
    return told.python_version(folder, package) or pytest.skip(f"{package} has no release for this Python")


def needs_node():
    if not (NODE / ".ready").exists() or shutil.which("node") is None:
        pytest.skip("node or npm is missing: install both, and run make test-consumers again")


def consumed(cases, tmp_path, runner, packages):
    """What a runtime for Python gives for each case."""
    write_cases(tmp_path / "cases.json", cases)
    python(HERE / "consume.py", runner, tmp_path / "cases.json", packages=packages)
    return read_results(tmp_path / "cases.json")


def in_node(cases, tmp_path, package):
    """The same by onnxruntime-node, or onnxruntime-web in node."""
    needs_node()
    write_cases(tmp_path / "cases.json", cases)
    command = ["node", HERE / "consume.mjs", package, tmp_path / "cases.json", NODE]
    subprocess.run(list(map(str, command)), check=True, timeout=120)
    return read_results(tmp_path / "cases.json")


@pytest.mark.parametrize("kind", KINDS)
def test_openvino(cases, tmp_path, kind):
    version = version_of("openvino", "openvino")
    check(cases[kind], consumed(cases[kind], tmp_path, "openvino", "openvino"), from_bytes=NARROW)
    told.note("OpenVINO, CPU, hint f32", version, kind, "holds")


@pytest.mark.parametrize("kind", KINDS)
def test_openvino_for_images_of_one_size(cases, tmp_path, kind):
    """Where the image's size is given, the weights of resizing are computed ahead."""
    from_bytes = [case for case in cases[kind] if "image" in case["inputs"]]
    check(from_bytes, consumed(from_bytes, tmp_path, "openvino-fixed", "openvino"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_onnxruntime(cases, tmp_path, kind):
    version = version_of("onnxruntime-old", "onnxruntime")
    results = consumed(cases[kind], tmp_path, "onnxruntime", "onnxruntime-old")
    if kind == "onnx":
        assert all(TOO_NEW in result for result in results)
        told.note("ONNX Runtime", version, kind, f"not loaded: `{TOO_NEW}`")
    else:
        check(cases[kind], results)
        told.note("ONNX Runtime", version, kind, "holds")


@pytest.mark.parametrize("kind", KINDS)
def test_tvm(cases, tmp_path, kind):
    """The segmenter from pixels: other graphs have loops, or images of any size."""
    version = version_of("tvm", "apache-tvm")
    own = [case for case in cases[kind] if case["graph"].name == "segmenter.onnx" and "pixels" in case["inputs"]]
    results = consumed(own, tmp_path, "tvm", "tvm")
    if reason := UNKNOWN_TO_TVM.get(kind):
        assert all(reason in result for result in results)
    else:
        check(own, results)
    verdict = f"not loaded: `{reason}`" if reason else "holds"
    told.note("TVM, LLVM: the segmenter from pixels", version, kind, verdict)


@pytest.mark.parametrize("package", ["node", "web"])
@pytest.mark.parametrize("kind", KINDS)
def test_javascript(cases, tmp_path, kind, package):
    check(cases[kind], in_node(cases[kind], tmp_path, package))
    place = ", WebAssembly, in node" if package == "web" else ""
    told.note(f"onnxruntime-{package}{place}", told.node_version(f"onnxruntime-{package}"), kind, "holds")


@pytest.fixture
def browser():
    needs_node()
    return find_browser() or pytest.skip("there is no Chromium; onnxruntime-web has run in node alone")


@pytest.mark.parametrize("kind", KINDS)
def test_a_browser(browser, cases, tmp_path, kind):
    write_cases(tmp_path / "cases.json", cases[kind])
    run_in_browser(browser, tmp_path / "cases.json", NODE, 120)
    check(cases[kind], read_results(tmp_path / "cases.json"))
    told.note("onnxruntime-web in headless Chromium", told.node_version("onnxruntime-web"), kind, "holds")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tool", [*EXACT, *ROUNDED])
def test_tools(cases, tmp_path, tool, kind):
    """What a tool writes, under ONNX Runtime."""
    graphs = list(dict.fromkeys(case["graph"] for case in cases[kind]))
    written = {graph: tmp_path / f"{i}.onnx" for i, graph in enumerate(graphs)}
    python(HERE / "transform.py", tool, *(path for pair in written.items() for path in pair), packages="tools")
    results = [onnxruntime_runner(written[case["graph"]])(case["inputs"]) for case in cases[kind]]
    error, labels = ROUNDED.get(tool, FLOAT32)
    check(cases[kind], results, (error, labels))
    verdict = f"within {error:g}, {labels:.1%} of labels" if tool in ROUNDED else "holds"
    if (tool, kind) == ("quantize_dynamic", "onnx"):
        verdict += '; takes `op_types_to_quantize=["MatMul"]`'
    told.note(*told.tool(tool, onnxruntime.__version__), kind, verdict)


@pytest.mark.parametrize("runner", ["openvino", "onnxruntime-old", "node"])
def test_static_int8(model, folders, tmp_path, runner):
    """Where integers are multiplied another way, sums of the same rounded numbers differ by little."""
    copy_samples(tmp_path / "images")
    options = ExportOptions(check=False, calibrate=tmp_path / "images")
    export_segmenter(model, tmp_path / "out", model.query(["car", "tree"]), options)
    pixels = np.stack([model.resized(read_image(IMAGE), (96, 96))])
    graph, inputs = tmp_path / "out" / "segmenter.onnx", {"pixels": normalised(pixels, model.mean, model.std)}
    cases = [{"graph": graph, "inputs": inputs, "truth": onnxruntime_runner(graph)(inputs)}]
    if runner == "node":
        results = in_node(cases, tmp_path, runner)
    else:
        package = "openvino" if runner == "openvino" else "onnxruntime"
        version_of(runner, package)
        results = consumed(cases, tmp_path, package, runner)
    check(cases, results, ROUNDED["quantize_dynamic"])


def runtime_scores(folder, tmp_path, packages, *chosen):
    """Scores of an image by this project's runtime with each of the options, and what it printed."""
    command = [sys.executable, HERE / "run_runtime.py", folder, IMAGE, tmp_path / "found", *map(json.dumps, chosen)]
    environment = {**os.environ, "PYTHONPATH": str(HOME / packages)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return [np.load(path) for path in sorted(tmp_path.glob("found.*.npz"))], done.stdout


def test_the_runtime_on_openvino(folders, tmp_path):
    """On ONNX Runtime's provider for it, beside the CPU's of the same build."""
    version = version_of("onnxruntime-openvino", "onnxruntime-openvino")
    options = [{}, {"provider": "openvino"}, {"provider": "openvino", "precision": "accuracy"}]
    (cpu, exact, own), printed = runtime_scores(folders / "ort", tmp_path, "onnxruntime-openvino", *options)
    assert not printed
    assert exact["provider"] == own["provider"] == "OpenVINOExecutionProvider"
    assert np.abs(exact["scores"] - cpu["scores"]).max() <= FLOAT32[0]
    assert np.abs(own["scores"] - cpu["scores"]).max() <= 0.02
    told.note('this runtime, `provider="openvino"`', version, "ort", "holds")


def test_the_runtime_on_an_old_onnxruntime(folders, model, tmp_path):
    """It runs what it can, and says which version the rest asks for."""
    version = version_of("onnxruntime-old", "onnxruntime")
    (found,), _ = runtime_scores(folders / "ort", tmp_path, "onnxruntime-old", {})
    truth = model.segment(str(IMAGE), ["car", "tree"], resize="squash").scores
    assert np.abs(found["scores"] - truth).max() <= 5e-3  # the runtime resizes by Pillow
    _, printed = runtime_scores(folders / "onnx", tmp_path, "onnxruntime-old", {})
    assert f"This is ONNX Runtime {version}, and the manifest asks for {onnxruntime.__version__} or newer" in printed


@pytest.fixture(scope="session")
def vocabulary(model, tmp_path_factory):
    """The folder that the examples speak of, an image, and the pixels of each name by the engine."""
    folder = tmp_path_factory.mktemp("examples")
    query = model.query(["car", "tree", "house"])
    export_segmenter(model, folder / "segmenter", query, ExportOptions(with_preprocess=True))
    image = folder / "image.png"
    shutil.copy(IMAGE, image)
    labels = model.segment(str(image), ["car", "tree", "house"], resize="squash").labels
    return folder / "segmenter", image, np.bincount(labels.ravel(), minlength=4) / labels.size


def run_example(name, *arguments, packages=None, **settings):
    """What an example prints, by name."""
    command = ["node" if name.endswith(".mjs") else sys.executable, ROOT / "examples" / name, *arguments]
    path = {"PYTHONPATH": str(HOME / packages)} if packages else {}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, **path}, timeout=120, **settings
    )
    assert done.returncode == 0, done.stderr
    return counted(done.stdout)


def counted(text):
    return {name: int(count) for name, count in (line.rsplit(" ", 1) for line in text.strip().splitlines())}


def assert_shares(found, names, shares, within):
    assert list(found) == names
    counts = np.array([*found.values()])
    assert np.abs(counts / counts.sum() - shares).max() < within


@pytest.mark.parametrize("example", ["onnxruntime_segmenter.py", "openvino_segmenter.py", "node_segmenter.mjs"])
def test_an_example_counts_the_engines_pixels(vocabulary, example):
    folder, image, shares = vocabulary
    settings = {"packages": "openvino"} if "openvino" in example else {}
    if example.endswith(".mjs"):
        needs_node()
        settings = {"cwd": NODE}
    found = run_example(example, folder, image, **settings)
    assert_shares(found, ["background", "car", "tree", "house"], shares, 0.02)  # counted on the graph's own grid


def test_the_page_counts_the_engines_pixels(browser, vocabulary):
    folder, image, shares = vocabulary
    text = show_page(browser, ROOT / "examples" / "browser_segmenter.html", folder, image, NODE, 60)
    assert_shares(counted(text), ["background", "car", "tree", "house"], shares, 0.02)


@pytest.fixture(scope="session")
def worded(model, tmp_path_factory):
    """Words, one of them longer than any text may be, and the shares of pixels of each by the engine."""
    words = ["car", "tree", "house " * 60]
    with pytest.warns(UserWarning, match="is cut: 67 tokens"):
        labels = model.segment(str(IMAGE), words, resize="squash").labels
    return words, np.bincount(labels.ravel(), minlength=4) / labels.size


def test_words_in_javascript(model, tmp_path, worded):
    needs_node()
    words, shares = worded
    export_onnx(model, tmp_path / "out", ExportOptions(check=False, with_preprocess=True))
    found = run_example("node_words.mjs", tmp_path / "out", IMAGE, *words, cwd=NODE)
    assert_shares(found, ['"background"', *map(json.dumps, words)], shares, 1e-3)


def test_a_client_of_triton(model, tmp_path, worded):
    """Against the published schema, and a stand-in that refuses what a configuration does not declare."""
    version_of("triton-client", "tritonclient")
    words, shares = worded
    export_triton_server(model, tmp_path / "out", ExportOptions(check=False, with_preprocess=True))
    models = tmp_path / "out" / "models"
    configs = read_configs(models, read_schema(HOME / "triton-client" / "tritonclient"))
    arguments = (tmp_path / "out", IMAGE, *words)
    with stand_in(models, configs) as server:
        found = run_example("triton_client.py", server, *arguments, packages="triton-client")
    assert_shares(found, ['"background"', *map(json.dumps, words)], shares, 1e-3)


def test_the_table_of_the_docs_is_of_this_run():
    """All that this run found stands there."""
    missing = told.missing((ROOT / "docs" / "export.md").read_text(encoding="utf-8"))
    assert not missing, "\n".join(["docs/export.md lacks", *missing])
