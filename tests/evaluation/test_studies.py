"""The paper's studies: right values on cases that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gem_fast.kernels import self_self_attention
from PIL import Image
from typer.testing import CliRunner

import gem_fast
from gem_fast.cli import app
from gem_fast.evaluation import open_data, studies


@pytest.fixture(scope="module")
def model():
    return gem_fast.load("gem-tiny")


def test_the_simulation_is_the_engines_attention():
    generator = np.random.default_rng(0)
    points = generator.standard_normal((20, 64))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    values = studies.self_self(points, 0.2, 2)
    qkv = torch.from_numpy(points)[None, :, None, None].expand(1, 20, 3, 1, 64).float().contiguous()
    theirs = self_self_attention(qkv, 5.0, iterations=2, projections="v")[0].double().numpy()
    weights = np.exp(values @ values.T * 5)
    np.testing.assert_allclose(weights / weights.sum(1, keepdims=True) @ points, theirs, atol=1e-6)


def test_clusters_are_what_is_linked():
    points = np.array([[1, 0], [0, 1], [1, 0], [-1, 0], [0, 1]], float)
    assert studies.clusters(points).tolist() == [0, 1, 0, 2, 1]
    assert studies.clusters(points, same=1.0).tolist() == [0, 1, 0, 2, 1]  # from the cosine itself on


def test_more_iterations_leave_fewer_clusters_and_so_do_higher_temperatures_from_ten_on(tmp_path):
    counts = studies.clustering(tmp_path).values["counts"]
    for temperature in studies.TEMPERATURES:
        found = [counts[temperature, k] for k in studies.ITERATIONS]
        assert found == sorted(found, reverse=True)
    for iterations in (10, 30):
        found = [counts[temperature, iterations] for temperature in studies.TEMPERATURES]
        assert found == sorted(found, reverse=True)
    assert Image.open(tmp_path / "clustering.png").size[0] > 300


def test_kmeans_and_self_self_attention_agree_on_clear_clusters(tmp_path):
    pytest.importorskip("sklearn")
    agreement = studies.kmeans(tmp_path, trials=2).values["agreement"]
    assert agreement[0].min() == 1
    assert agreement[-1][0] < 0.5


def test_lipschitz_constants_are_largest_singular_values(model, tmp_path):
    values = studies.lipschitz(model, tmp_path).values
    weight = model.vision.blocks[2].qkv.weight.double().numpy()
    width = weight.shape[1]
    for k, letter in enumerate("qkv"):
        wanted = np.linalg.svd(weight[k * width : (k + 1) * width], compute_uv=False)[0]
        assert values[letter][2] == pytest.approx(wanted, rel=1e-5)


def test_localization_measures_each_method(model, tmp_path):
    dataset = open_data("scenes", None)
    made = studies.localization(model, dataset, tmp_path, images=6)
    means, names = made.values["means"], made.values["names"]
    assert np.isnan(means[0, names.index("CLIP Surgery")]).all()  # of the last six blocks of seven
    last = dict(zip(names, means[-1], strict=True))
    assert last["GEM, 1 it."][2] > last["CLIP"][2]
    assert last["GEM, 3 it."][0] > last["GEM, 1 it."][0]
    pixels = [model.pixels(dataset.images[i], (96, 96)) for i in range(6)]
    features = model.patch_features(np.stack(pixels), (96, 96)).flatten(1, 2)
    wanted = torch.einsum("bne,bme->bnm", features, features).mean()
    assert last["GEM, 1 it."][0] == pytest.approx(float(wanted), abs=1e-5)


def test_patches_of_a_class_are_those_that_are_mostly_its_own():
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 2], [2, 2, 0, 0], [2, 0, 0, 3]])
    masks = {label: mask.tolist() for label, mask in studies._patch_masks(truth, True, (2, 2)).items()}
    assert masks == {1: [False, True, False, False], 2: [False, False, True, False]}
    assert 0 in studies._patch_masks(truth, False, (2, 2))  # a class like others where nothing is background
    assert studies._patch_masks(np.ones((4, 4), int), True, (2, 2)) == {}  # nothing to compare it with


def test_contrasts_are_of_an_object_with_the_rest():
    features, words = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1]]), torch.tensor([[0.0, 1], [1, 0]])
    found = studies._measured(features, {1: np.array([True, True, False])}, words)
    cosines = np.array([[1, 0.6, 0], [0.6, 1, 0.8], [0, 0.8, 1]])
    assert found == pytest.approx([cosines.mean(), 3.2 / 4 - 0.8 / 2, (1 + 0.6) / 2])
    assert np.isnan(studies._measured(features, {}, words)[1:]).all()


def test_localization_means_are_over_the_images_that_have_a_measure(model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        studies, "_measured", lambda _, masks, __: np.array([1, 2, 3] if masks else [5, np.nan, np.nan])
    )
    monkeypatch.setattr(studies, "save", lambda *_: None)
    scenes = open_data("scenes", None)
    without = replace(scenes, read=lambda index: scenes.read(index) * (index == 0))  # the second has no object
    means = studies.localization(model, without, tmp_path, images=2).values["means"]
    assert means[-1].tolist() == [[3, 2, 3]] * 5


def test_localization_goes_on_without_images_that_can_not_be_used(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / "own" / part).mkdir(parents=True)
    for name, size in (("a", (64, 64)), ("b", (64, 64)), ("c", (32, 32))):
        Image.new("RGB", (64, 64), "red").save(tmp_path / f"own/images/{name}.png")
        Image.fromarray(np.tile(np.array([0, 1], np.uint8), (size[1], size[0] // 2))).save(
            tmp_path / f"own/labels/{name}.png"
        )
    photograph = tmp_path / "own/images/b.png"
    photograph.write_bytes(photograph.read_bytes()[:60])
    (tmp_path / "own/classes.txt").write_text("cat\ndog\n")
    options = ["--data", str(tmp_path / "own"), "--size", "64", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["study", "localization", *options])
    said = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "on 1 images of own" in said
    assert "b.png: damaged" in said
    assert "c.png: the image is 64×64 and its labels are 32×32" in said
    (tmp_path / "own/images/a.png").write_bytes(b"no photograph")
    assert "no image could be used" in CliRunner().invoke(app, ["study", "localization", *options]).output


@pytest.mark.parametrize("study", ["clustering", "kmeans", "lipschitz", "localization"])
def test_a_picture_without_a_place_is_told_before_anything_is_computed(study, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, study, lambda *given: pytest.fail("something ran"))
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["study", study, "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "file is no folder" in " ".join(result.output.split())


def test_the_command_prints_and_draws(tmp_path):
    result = CliRunner().invoke(app, ["study", "clustering", "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert "τ = 0.18: " in result.output
    assert (tmp_path / "clustering.png").is_file()
