"""CLIP Surgery's feature surgery of scores, against its definition over features in float64."""

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from gem_fast.export import ExportError, ExportOptions, export_onnx
from gem_fast.export.segmenter_export import export_segmenter
from gem_fast.export.tensorrt.tensorrt_export import export_tensorrt
from gem_fast.export.triton_server import export_triton_server
from typer.testing import CliRunner

import gem_fast
from gem_fast.cli import app
from gem_fast.runtime import GemRuntime
from gem_fast.runtime.engine import synonym_rows
from gem_fast.runtime.interface import TensorFacts
from gem_fast.runtime.manifest import read_manifest
from gem_fast.scores import surgery_scores


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def by_features(patches, image, words):
    """Of one image: every word's product with every patch, `[N, T, E]`, less their weighted mean over the words."""
    likeness = torch.softmax(2 * image @ words.T, dim=0)
    products = patches.flatten(0, 1)[:, None] * words * (likeness / likeness.mean())[:, None]
    left = products - products.mean(1, keepdim=True)
    return left.sum(-1).T.unflatten(1, patches.shape[:2])


@pytest.mark.parametrize("count", [2, 3, 40])
def test_it_is_what_the_features_give(count):
    patches, images, words = unit(3, 5, 7, 64), unit(3, 64, seed=1), unit(count, 64, seed=2)
    truth = torch.stack([by_features(*each, words) for each in zip(patches, images, strict=True)])
    single = [tensor.float() for tensor in (patches, images, words)]
    assert ((surgery_scores(*single, [1] * count) - truth).norm() / truth.norm()).item() < 1e-6
    alone = torch.cat([surgery_scores(single[0][[i]], single[1][[i]], single[2], [1] * count) for i in range(3)])
    assert torch.equal(alone, surgery_scores(*single, [1] * count))


def test_synonyms_are_words_of_their_own_until_the_last():
    patches, images, words = unit(2, 4, 4, 32).float(), unit(2, 32, seed=1).float(), unit(4, 32, seed=2).float()
    every = surgery_scores(patches, images, words, [1] * 4)
    found = surgery_scores(patches, images, words, [1, 2, 1])
    assert torch.equal(found, torch.stack([every[:, 0], every[:, 1:3].amax(1), every[:, 3]], dim=1))


@pytest.fixture(scope="module")
def model():
    return gem_fast.load("gem-tiny", method="clip-surgery", feature_surgery=True)


def test_segment_uses_the_images_own_embedding(model, picture):
    image = picture(96, 96)
    query = model.query(["cat", "dog", "car"])
    features = model.patch_features(np.asarray(image)[None], (96, 96))
    truth = by_features(features.patches[0].double(), features.original_class[0].double(), query.words.double())
    scores = model.segment([image, picture(96, 96, seed=1)], ["cat", "dog", "car"], size=96)[0].scores
    assert np.abs(scores - truth.numpy()).max() < 1e-6
    plain = gem_fast.load("gem-tiny", method="clip-surgery").segment(image, ["cat", "dog", "car"], size=96)
    assert np.abs(plain.scores - scores).max() > 1e-3


def test_a_single_class_is_told_from_no_word(model, picture):
    image = picture(96, 96)
    patches = model.patch_features(np.asarray(image)[None], (96, 96)).patches[0].double()
    words, empty = (model.text.encode([text], ("a photo of a {}.",)).double()[0] for text in ("cat", ""))
    truth = patches @ (words - empty)
    assert np.abs(model.segment(image, "cat", size=96).scores[0] - truth.numpy()).max() < 1e-6


def test_a_run_tells_it_and_files_get_it(model, picture, tmp_path):
    assert model.identity()["method"]["feature_surgery"] is True
    assert "feature_surgery" not in gem_fast.load("gem-tiny").identity()["method"]
    picture(96, 96).save(tmp_path / "a.png")
    outcome = gem_fast.segment_files(model, [tmp_path / "a.png"], ["cat", "dog"], tmp_path / "out")
    assert (outcome.done, outcome.failed) == (1, 0)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """Compared with torch as it is written, `image_embedding` among the outputs."""
    folder = tmp_path_factory.mktemp("surgery") / "exported"
    manifest = export_onnx(model, folder, ExportOptions(sizes=((64, 96),), original=True))
    assert {"patch_features", "image_embedding", "original_features"} <= {each.output for each in manifest.check}
    return folder


@pytest.mark.parametrize("prompts", [["cat", ("dog", "puppy"), "car"], "cat", [("cat", "kitten")]], ids=str)
def test_the_runtime_scores_as_the_engine(model, exported, picture, prompts):
    runtime = GemRuntime(exported)
    assert runtime.identity()["method"] == model.identity()["method"]
    asked = [picture(64, 96, seed=seed) for seed in range(3)], prompts
    own, found = model.segment(*asked, size=64), runtime.segment(*asked)
    for mine, other in zip(own, found, strict=True):
        assert np.abs(mine.scores - other.scores).max() < 2e-5
        assert (mine.labels == other.labels).mean() >= 0.9999
    plain = GemRuntime(exported, feature_surgery=False)
    scores = plain.segment(*asked)[0].scores
    assert np.abs(scores - found[0].scores).max() > 1e-3
    assert "feature_surgery" not in plain.identity()["method"]


def test_a_copy_of_a_runtime_scores_as_it_was_asked_to(exported):
    """In other processes, whatever the export is for."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    for asked in (False, True):
        model = GemRuntime(exported, threads=1, feature_surgery=asked)
        query = model.query(["cat", "dog"])
        copied = model.replica(query)("cpu:0", 1)(pixels, (64, 96), None)
        assert np.array_equal(copied, model.score_on_host(pixels, (64, 96), query))


def test_an_export_without_it_refuses_it(tmp_path):
    export_onnx(gem_fast.load("gem-tiny"), tmp_path / "out", ExportOptions(check=False))
    assert not GemRuntime(tmp_path / "out").feature_surgery
    with pytest.raises(ExportError, match="was exported without feature surgery"):
        GemRuntime(tmp_path / "out", feature_surgery=True)


def test_tensorrt_takes_the_graph(model, tmp_path):
    made = export_tensorrt(model, tmp_path / "out", ExportOptions(attention="onnx", sizes=((64, 96),), check=False))
    assert made.manifest.files["image_encoder.onnx"].outputs["image_embedding"] == TensorFacts("float", ("batch", 128))


PROMPTS = [["cat", ("dog", "puppy"), "car"], ["cat", "dog"], [("cat", "kitten")]]


@pytest.mark.filterwarnings("ignore:this model's vocabulary does not hold")
@pytest.mark.parametrize("prompts", PROMPTS, ids=str)
def test_the_head_scores_as_the_engine(model, exported, prompts):
    """`head.onnx`, on what the encoders give, whatever the number of words of a class."""
    pixels = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    query, features = model.query(prompts), model.features(pixels, original=True)
    groups = query.groups
    rows = [[-1]] if max(groups) == 1 else synonym_rows(groups)
    feed = {
        "patch_features": features.patches.numpy(),
        "image_embedding": features.original_class.numpy(),
        "text_embeddings": query.words.numpy(),
        "synonyms": np.array(rows),
        "output_size": np.array([61, 53]),
        "logit_scale": np.array(15.0, np.float32),
        "threshold": np.array(0.0, np.float32),
    }
    found = onnxruntime.InferenceSession(exported / "head.onnx").run(["cosines"], feed)[0]
    assert np.abs(found - model.scores(features, range(3), query.words, groups).numpy()).max() < 1e-5


def test_triton_servers_ensemble_scores_by_it(model, tmp_path):
    manifest = export_triton_server(model, tmp_path / "out", ExportOptions(sizes=((64, 96),), check=False))
    assert manifest == read_manifest(tmp_path / "out")
    assert manifest.export.feature_surgery
    assert "image_embedding" in manifest.files["models/gem_image_encoder/1/model.onnx"].outputs
    assert "image_embedding" in manifest.files["models/gem_head/1/model.onnx"].inputs
    given = 'name: "image_embedding" data_type: TYPE_FP32'
    for name in ("gem_image_encoder", "gem_head"):
        assert given in (tmp_path / "out" / "models" / name / "config.pbtxt").read_text()
    ensemble = (tmp_path / "out" / "models" / "gem" / "config.pbtxt").read_text()
    for step in ("output_map", "input_map"):
        assert f'{step} {{ key: "image_embedding" value: "image_embedding" }}' in ensemble
    assert given not in ensemble  # neither asked for nor given
    assert "scores by CLIP Surgery's feature surgery" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:this model's vocabulary does not hold")
@pytest.mark.parametrize("prompts", PROMPTS, ids=str)
def test_a_fixed_vocabulary_is_scored_by_it(model, picture, tmp_path, prompts):
    options = ExportOptions(sizes=((64, 96),))
    manifest = export_segmenter(model, tmp_path / "out", model.query(prompts), options, with_scores=True)
    assert manifest.export.feature_surgery
    image = picture(64, 96)
    pixels = (np.asarray(image, np.float32) / 255 - model.mean) / model.std
    session = onnxruntime.InferenceSession(tmp_path / "out" / "segmenter.onnx")
    scores = session.run(["scores"], {"pixels": pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0]
    assert np.abs(scores[0] - model.segment(image, prompts, resize="exact").scores).max() < 2e-5


def test_the_command_line_exports_and_runs_it(tmp_path, picture):
    picture(96, 96).save(tmp_path / "a.png")
    out, run = tmp_path / "exported", ["segment", str(tmp_path / "a.png"), "--prompt", "cat", "--prompt", "dog"]
    command = ["export", "--feature-surgery", "--method", "clip-surgery", "--no-check", "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert read_manifest(out).export.feature_surgery
    result = CliRunner().invoke(app, [*run, "--runtime", str(out), "--feature-surgery", "--out", str(tmp_path / "1")])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, [*run, "--feature-surgery", "--out", str(tmp_path / "2")])
    assert result.exit_code == 0, result.output
