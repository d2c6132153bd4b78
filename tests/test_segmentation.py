"""Results: labels, confidences, heat maps, files."""

import json
from dataclasses import replace

import gem_fast.kernels
import numpy as np
import pytest
import torch
from gem_fast.kernels.cpu_library import why_missing
from PIL import Image

import gem_fast
from gem_fast import Segmentation
from gem_fast.decoding import KernelDecoder
from gem_fast.options import Defaults
from tests.results import result


def upsampled(seg):
    return torch.nn.functional.interpolate(seg.all_scores[None], seg.size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize(("classes", "dtype"), [(1, np.uint8), (2, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_label_type(classes, dtype):
    seg = result(classes)
    assert seg.labels.dtype == dtype
    assert seg.labels.shape == seg.size == (20, 30)
    assert seg.labels.max() <= classes


def test_labels_and_confidence_are_the_softmaxes():
    seg = result(4, threshold=0.5)
    probabilities = (upsampled(seg) * 100).softmax(0)
    best, index = probabilities.max(0)
    np.testing.assert_allclose(seg.confidence, best, atol=1e-5)
    assert np.array_equal(seg.labels, torch.where(best >= 0.5, index + 1, 0).numpy())
    assert {0, 1, 2, 3, 4} == set(np.unique(seg.labels))
    assert seg.confidence.dtype == np.float32


def test_thresholds_at_the_ends():
    assert result(3, threshold=0.0).labels.min() == 1
    assert result(3, threshold=1.0).labels.max() == 0
    alone = result(1, threshold=1.0)
    assert alone.labels.sum() == (alone.confidence == 1).sum() > 0
    assert result(1, threshold=0.0).labels.min() == 1


def test_the_logit_scale_sharpens():
    assert result(scale=500.0).confidence.mean() > result(scale=10.0).confidence.mean()


def test_a_single_prompt_is_judged_by_its_heat_map():
    seg = result(1, threshold=0.5)
    assert np.array_equal(seg.confidence, seg.heatmap("class 0"))
    assert np.array_equal(seg.labels, (seg.heatmap("class 0") >= 0.5).astype(np.uint8))
    assert 0 < seg.labels.mean() < 1


def test_heat_maps_span_0_to_1_each():
    seg = result(3)
    maps = seg.heatmaps
    assert (maps.shape, maps.dtype) == ((3, 20, 30), np.float32)
    assert np.array_equal(maps.min((1, 2)), np.zeros(3))
    assert np.array_equal(maps.max((1, 2)), np.ones(3))
    for i, name in enumerate(seg.classes):
        np.testing.assert_allclose(seg.heatmap(name), maps[i], atol=1e-6)
    whole = upsampled(seg)
    low, high = whole.amin((1, 2), keepdim=True), whole.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(maps, (whole - low) / (high - low), atol=1e-5)


def test_a_flat_score_has_an_empty_heat_map():
    seg = Segmentation(Image.new("RGB", (8, 8)), ("cat",), torch.full((1, 2, 2), 0.3), 0.5, 100.0, KernelDecoder())
    assert seg.heatmap("cat").max() == 0
    assert seg.labels.max() == 0


def test_the_models_backend_decodes_too(monkeypatch, picture):
    """Named for the attention, it is named for LayerNorm and the scores; and fails loudly where it can't serve."""
    asked = []
    monkeypatch.setattr("gem_fast.kernels.backends.os.environ", {})
    for name in ("add_layer_norm", "decode_labels", "decode_heatmaps"):
        plain = getattr(gem_fast.kernels, name)
        places = ["gem_fast.kernels"] if name.startswith("decode") else ["gem_fast.towers.vit", "gem_fast.towers.block"]

        def record(*a, plain=plain, **k):
            asked.append(k["backend"])
            return plain(*a, **k)

        for place in places:
            monkeypatch.setattr(f"{place}.{name}", record)
    seg = gem_fast.load("ViT-S-32-alt", "random", backend="sdpa").segment(picture(), ["cat", "dog"], size=64)
    assert (seg.labels.shape, seg.heatmaps.shape) == ((48, 64), (2, 48, 64))
    # Before the blocks, twice in each but for what the last needs not, and behind them; the labels, the heat maps.
    assert asked == ["sdpa"] * (1 + 12 + 11 + 1 + 2)
    with pytest.raises(ValueError, match=r"'triton' can't serve: x is on cpu"):
        gem_fast.load("ViT-S-32-alt", "random", backend="triton").segment(picture(), "cat", size=64)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("backend", [None, "cpu", "sdpa", "reference"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_scores_of_every_type_are_decoded_on_every_backend(backend, dtype, classes):
    """As a model on that backend would: a type that its decoding does not take is no error of a result."""
    if backend == "cpu" and why_missing():
        pytest.skip(f"cpu can't serve: {why_missing()}")
    plain = result(classes)
    seg = replace(plain, all_scores=plain.all_scores.to(dtype), decoder=KernelDecoder(backend))
    loss = 0.2 if dtype == torch.bfloat16 else 1e-4  # of scores times 100
    assert seg.labels.dtype == np.uint8
    for name in ("confidence", "heatmaps", "scores"):
        assert getattr(seg, name).dtype == np.float32
    np.testing.assert_allclose(seg.confidence, plain.confidence, atol=loss)
    np.testing.assert_allclose(seg.heatmaps, plain.heatmaps, atol=loss)


@pytest.mark.parametrize(("background", "usual"), [((), 0.4), (["sky"], 0.7)], ids=["alone", "not-alone"])
def test_the_models_own_threshold_is_that_of_heat_maps_for_a_single_score(small_model, background, usual):
    """Where the caller names none; a background class makes it one of several."""
    model = replace(small_model, defaults=Defaults(64, threshold=0.7, heatmap_threshold=0.4, logit_scale=50.0))
    image = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    seg = model.segment(image, "cat", background=background)
    assert (seg.threshold, seg.logit_scale) == (usual, 50.0)
    assert np.array_equal(seg.confidence, seg.heatmap("cat")) == (not background)
    if not background:
        assert np.array_equal(seg.labels, seg.confidence >= 0.4)
    asked = model.segment(image, "cat", background=background, threshold=0.0, logit_scale=3.0)
    assert (asked.threshold, asked.logit_scale) == (0.0, 3.0)


@pytest.mark.parametrize("name", ["background", "Background"])
def test_a_class_called_background_is_told_from_label_0(small_model, name):
    seg = small_model.segment(Image.linear_gradient("L").convert("RGB"), [name, "cat"], size=64, threshold=0.6)
    assert [entry["name"] for entry in seg.legend().values()] == ["unlabelled", name, "cat"]
    shares = [float((seg.labels == i).mean()) for i in range(3)]
    assert seg.areas() == {
        label: share for label, share in zip(("unlabelled", name, "cat"), shares, strict=True) if share
    }
    both = small_model.segment(Image.new("RGB", (64, 64)), [name, "unlabelled"], size=64)
    assert both.legend()["0"]["name"] == "unlabelled 2"


def test_a_result_needs_the_decoder_of_its_engine():
    """No module that says it needs no torch may choose torch's."""
    with pytest.raises(TypeError, match="decoder"):
        Segmentation(Image.new("RGB", (8, 8)), ("cat",), torch.zeros(1, 2, 2), 0.5, 100.0)


def test_heat_map_of_a_stranger():
    with pytest.raises(KeyError, match="'zebra' is not among the classes: class 0, class 1"):
        result(2).heatmap("zebra")
    with pytest.raises(KeyError, match="zebra"):
        result(2).overlay("zebra")


def test_results_can_be_compared_kept_in_sets_and_printed():
    one, other = result(), result()
    assert one == one
    assert one != other
    assert len({one, other}) == 2
    assert "class 0" in repr(one)
    assert len(repr(one)) < 300


def test_scores_are_the_cosines():
    seg = result(2)
    assert (seg.scores.shape, seg.scores.dtype) == ((2, 4, 6), np.float32)
    np.testing.assert_array_equal(seg.scores, seg.all_scores)


@pytest.mark.parametrize("threshold", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("names", [("cat", "dog", "bus"), ("cat", "background"), ("cat",)], ids=str)
def test_areas_sum_to_one(names, threshold):
    seg = result(names, threshold=threshold)
    areas = seg.areas()
    assert sum(areas.values()) == pytest.approx(1)
    assert all(areas.values())
    assert areas.get("cat", 0) == pytest.approx((seg.labels == 1).mean())


def test_legend_has_each_label_and_its_own_colour():
    legend = result(300).legend()
    assert list(legend) == [str(i) for i in range(301)]
    assert legend["0"] == {"name": "background", "color": "#000000"}
    assert legend["3"]["name"] == "class 2"
    assert len({entry["color"] for entry in legend.values()}) == 301


class TestSave:
    def test_files(self, tmp_path):
        paths = result().save(tmp_path / "new" / "folder", "x")
        assert {kind: path.name for kind, path in paths.items()} == {
            "overlay": "x.overlay.png",
            "labels": "x.labels.png",
            "legend": "x.legend.json",
        }
        assert sorted(tmp_path.rglob("*.*")) == sorted(paths.values())

    @pytest.mark.parametrize(
        ("stem", "source", "name"),
        [(None, None, "image"), (None, "in/photo.v2.jpg", "photo.v2"), ("own", "in/photo.jpg", "own")],
    )
    def test_names(self, tmp_path, stem, source, name):
        assert result(source=source).save(tmp_path, stem)["labels"] == tmp_path / f"{name}.labels.png"

    def test_stem_with_folders(self, tmp_path):
        assert result().save(tmp_path, "a/b/c")["overlay"].relative_to(tmp_path).parts == ("a", "b", "c.overlay.png")

    @pytest.mark.parametrize("classes", [1, 3, 255, 256, 300])
    def test_labels_come_back(self, tmp_path, classes):
        seg = result(classes, size=(40, 60), threshold=0.01)
        stored = Image.open(seg.save(tmp_path)["labels"])
        assert stored.mode == ("P" if classes < 256 else "I;16")
        assert np.array_equal(np.asarray(stored), seg.labels)

    def test_palette_and_legend_agree(self, tmp_path):
        seg = result(5)
        paths = seg.save(tmp_path)
        legend = json.loads(paths["legend"].read_text(encoding="utf-8"))
        colours = np.asarray(Image.open(paths["labels"]).convert("RGB"))
        for label in np.unique(seg.labels):
            y, x = np.argwhere(seg.labels == label)[0]
            assert "#{:02x}{:02x}{:02x}".format(*colours[y, x]) == legend[str(label)]["color"]
        assert legend["5"]["name"] == "class 4"

    def test_heat_maps(self, tmp_path):
        seg = result(("cat", "猫"))
        with np.load(seg.save(tmp_path, heatmaps=True)["heatmaps"], allow_pickle=False) as stored:
            assert stored["heatmaps"].dtype == np.float16
            np.testing.assert_allclose(stored["heatmaps"], seg.heatmaps, atol=1e-3)
            np.testing.assert_array_equal(stored["scores"], seg.scores)
            assert stored["classes"].tolist() == ["cat", "猫"]

    def test_names_that_utf8_cannot_hold(self, tmp_path):
        """Command-line arguments in another encoding arrive as lone surrogates."""
        name = "caf\udce9"
        legend = result((name, "dog")).save(tmp_path)["legend"].read_text(encoding="utf-8")
        assert json.loads(legend)["1"]["name"] == name

    def test_overwrites(self, tmp_path):
        result(seed=0).save(tmp_path)
        path = result(seed=1).save(tmp_path)["labels"]
        assert np.array_equal(np.asarray(Image.open(path)), result(seed=1).labels)
