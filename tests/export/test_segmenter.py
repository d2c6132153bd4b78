"""One graph for a fixed vocabulary: the engine's labels, from images alone."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gem_fast.export import ExportError, ExportOptions
from gem_fast.export import segmenter as writing
from gem_fast.export.segmenter_export import export_segmenter
from gem_fast.export.verdict import DisagreementError

import gem_fast
from gem_fast.runtime import GemRuntime
from gem_fast.runtime.folder import verify_files
from gem_fast.runtime.manifest import read_manifest
from tests.command_line import invoke

SIZE = (64, 96)
VOCABULARIES = {
    "two": (["cat", "dog"], []),
    "one": (["cat"], []),
    "one against background": (["cat"], ["tree"]),
    "synonyms": ([("car", "automobile"), "house", ("tree", "bush", "forest")], ["sky", ("grass", "lawn")]),
}


@pytest.fixture(scope="module")
def model():
    return gem_fast.load("gem-tiny", gem_blocks=2)


def run(folder, feed, name="segmenter.onnx"):
    session = onnxruntime.InferenceSession(folder / name)
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feed), strict=True))


@pytest.mark.filterwarnings("ignore:this model's vocabulary does not hold")
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_it_gives_the_engines_labels(model, tmp_path, picture, vocabulary):
    prompts, background = VOCABULARIES[vocabulary]
    query = model.query(prompts, background=background)
    export_segmenter(model, tmp_path / "out", query, ExportOptions(sizes=(SIZE,), check=False), with_scores=True)
    image = picture(*SIZE, seed=3)
    result = model.segment(image, prompts, background=background, resize="exact")
    pixels = (np.asarray(image, np.float32) / 255 - model.mean) / model.std
    found = run(tmp_path / "out", {"pixels": pixels.transpose(2, 0, 1)[None].astype(np.float32)})
    assert (found["labels"][0] == result.labels).all()
    np.testing.assert_allclose(found["confidence"][0], result.confidence, atol=2e-5)
    np.testing.assert_allclose(found["scores"][0], result.scores, atol=1e-5)


def test_the_file_says_what_it_is_for(model, tmp_path):
    query = model.query({"cat": ["cat", "kitten"], "dog": ["dog"]}, background=["tree"], threshold=0.25)
    manifest = export_segmenter(model, tmp_path / "out", query, ExportOptions(sizes=(SIZE,)))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "segmenter.onnx"]
    assert manifest == read_manifest(tmp_path / "out")
    verify_files(tmp_path / "out", manifest)
    assert all(row.holds for row in manifest.check)
    proto = onnx.load(tmp_path / "out" / "segmenter.onnx")
    stored = json.loads({p.key: p.value for p in proto.metadata_props}["gem_fast"])["vocabulary"]
    assert stored["classes"] == {"cat": ["cat", "kitten"], "dog": ["dog"]}
    assert (stored["background"], stored["threshold"]) == ({"tree": ["tree"]}, 0.25)
    assert not {"Loop", "If"} & {node.op_type for node in proto.graph.node}
    assert not {each.name for each in proto.graph.input} & {each.name for each in proto.graph.initializer}
    with pytest.raises(ExportError, match="of the format segmenter; export"):
        GemRuntime(tmp_path / "out")


def test_images_of_any_size_from_bytes_for_two_sizes(model, tmp_path):
    options = ExportOptions(sizes=(SIZE, (48, 48)), with_preprocess=True)
    manifest = export_segmenter(model, tmp_path / "out", model.query(["cat", "dog"]), options)
    assert min(row.labels for row in manifest.check if row.labels is not None) > 0.999
    image = np.random.default_rng(0).integers(0, 256, (2, 70, 50, 3), dtype=np.uint8)
    found = run(tmp_path / "out", {"image": image}, "segmenter_48x48.onnx")
    assert found["labels"].shape == (2, 48, 48)
    assert set(found) == {"labels", "confidence"}


@pytest.mark.parametrize("chosen", [{"dtype": "float16"}, {"quantize": "int8"}, {"attention": "portable"}], ids=str)
def test_other_types_are_held_against_torch(model, tmp_path, chosen):
    manifest = export_segmenter(model, tmp_path / "out", model.query(["cat", "dog"]), ExportOptions(**chosen))
    assert all(row.holds for row in manifest.check)


def swapped_labels(graph, logits, rows, columns):
    confidence, best = DECODE(graph, logits, rows, columns)
    return confidence, graph.op("Sub", graph.constant(3, np.int32), best)


def turned_features(layers, *given):
    graph = layers.graph
    ends = [graph.constant([each]) for each in (-1, np.iinfo(np.int64).min, 3, -1)]
    return graph.op("Slice", PATCHES(layers, *given), *ends)


DECODE, PATCHES = writing._decode, writing.patch_embeddings


@pytest.mark.parametrize(
    ("step", "wrong", "told"),
    [
        ("_decode", swapped_labels, "confidence of segmenter.onnx: .*, labels equal on 0.0000%"),
        ("patch_embeddings", turned_features, "patch_features of segmenter.onnx: relative error 1"),
    ],
)
def test_a_wrong_graph_is_refused(model, tmp_path, monkeypatch, step, wrong, told):
    monkeypatch.setattr(writing, step, wrong)
    with pytest.raises(DisagreementError, match=told):
        export_segmenter(model, tmp_path / "out", model.query(["cat", "dog"], threshold=0.0), ExportOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("vocabulary", ["two", "one", "one against background"])
def test_labels_are_right_where_nothing_stands_higher_than_they_do(model, vocabulary):
    prompts, background = VOCABULARIES[vocabulary]
    query = model.query(prompts, background=background, threshold=0.4)
    sure = torch.rand(1, len(query.groups), 30, 30, generator=torch.Generator().manual_seed(0))
    best, index = sure.max(1)
    labels = torch.where((best >= 0.4) & (index < len(prompts)), index + 1, 0)
    assert writing.right_labels(labels, sure, query, 0.0) == 1
    assert writing.right_labels((labels + 1) % (len(prompts) + 1), sure, query, 0.0) == 0
    assert writing.right_labels(1 - labels.clamp_max(1), sure, query, 1.0) == 1
    near = (best - 0.4).abs() < 0.05
    if vocabulary == "one":
        share = writing.right_labels(torch.where(near, 1 - labels, labels), sure, query, 0.03)
        assert 0 < 1 - share < near.double().mean()


def test_the_command_line_writes_it(tmp_path):
    (tmp_path / "more.txt").write_text("car, automobile\n")
    named = ["--prompt", "cat", "--prompts-file", tmp_path / "more.txt", "--background", "tree", "--with-scores"]
    done = invoke("export", *named, "--gem-blocks", 1, "--size", 48, "--no-check", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    vocabulary = read_manifest(tmp_path / "out").vocabulary
    assert vocabulary.classes == {"cat": ("cat",), "car": ("car", "automobile")}
    assert vocabulary.background == {"tree": ("tree",)}
    pixels = torch.randn(1, 3, 48, 48).numpy()
    assert run(tmp_path / "out", {"pixels": pixels})["scores"].shape == (1, 2, 6, 6)


def test_warnings_are_short(tmp_path):
    small = ["--gem-blocks", 1, "--size", 32, "--no-check"]
    done = invoke("export", "--prompt", "qzxv", "--prompt", "cat", *small, "--out", tmp_path / "out")
    assert "gem-fast: this model's vocabulary does not hold: qzxv; " in done.stderr
    assert "UserWarning" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--background", "sky"], "--background and --with-scores go with --prompt"),
        (["--with-scores"], "--background and --with-scores go with --prompt"),
        (["--prompt", "cat", "--format", "pt2"], "a fixed vocabulary is for the format onnx, got pt2"),
        (["--prompt", "cat", "--dynamic-size"], "a segmenter has fixed sizes and one path"),
        (["--prompt", " "], "a prompt must be a text"),
    ],
)
def test_what_does_not_fit(tmp_path, arguments, told):
    done = invoke("export", *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()
