"""Results: labels, confidences, heat maps, overlays, files; and `GemModel.segment` on every way of calling it."""

import json

import gem_fast.kernels
import numpy as np
import pytest
import torch
from PIL import Image

import gem_fast
from gem_fast import ImageError, Segmentation
from gem_fast.rendering import class_colour, font_for, palette, readable
from gem_fast.writing import write_whole


def result(classes=3, size=(20, 30), threshold=0.0, scale=100.0, seed=0, source=None):
    """A result with random scores on a 4×6 grid."""
    names = tuple(f"class {i}" for i in range(classes)) if isinstance(classes, int) else tuple(classes)
    scores = torch.rand(len(names), 4, 6, generator=torch.Generator().manual_seed(seed)) / 10
    image = Image.new("RGB", (size[1], size[0]), (90, 120, 150))
    return Segmentation(image, names, scores, threshold, scale, source)


def upsampled(seg):
    return torch.nn.functional.interpolate(seg.cosines[None], seg.size, mode="bilinear", align_corners=False)[0]


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
    seg = Segmentation(Image.new("RGB", (8, 8)), ("cat",), torch.full((1, 2, 2), 0.3), 0.5, 100.0)
    assert seg.heatmap("cat").max() == 0
    assert seg.labels.max() == 0


def test_the_models_backend_decodes_too(monkeypatch, picture):
    """Named for the attention, it is named for LayerNorm and the scores; and fails loudly where it can't serve."""
    asked = []
    monkeypatch.setattr("gem_fast.kernels.choice.os.environ", {})
    for name in ("layer_norm_and_temperature", "decode_labels", "decode_heatmaps"):
        plain = getattr(gem_fast.kernels, name)
        place = "gem_fast.vision" if name.startswith("layer") else "gem_fast.kernels"

        def record(*a, plain=plain, **k):
            asked.append(k["backend"])
            return plain(*a, **k)

        monkeypatch.setattr(f"{place}.{name}", record)
    seg = gem_fast.load("ViT-S-32-alt", "random", backend="sdpa").segment(picture(), ["cat", "dog"], size=64)
    assert (seg.labels.shape, seg.heatmaps.shape) == ((48, 64), (2, 48, 64))
    assert asked == ["sdpa"] * 8  # six blocks, the labels, the heat maps
    with pytest.raises(ValueError, match=r"'triton' can't serve: x is on cpu"):
        gem_fast.load("ViT-S-32-alt", "random", backend="triton").segment(picture(), "cat", size=64)


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
    np.testing.assert_array_equal(seg.scores, seg.cosines)


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


class TestOverlay:
    def test_colours_what_has_a_label_and_leaves_the_background(self):
        seg = result(3, size=(200, 300), threshold=0.6)
        picture = np.asarray(seg.overlay()).astype(int)
        top = picture[:200]
        original = np.asarray(seg.image).astype(int)
        assert np.array_equal(top[seg.labels == 0], original[seg.labels == 0])
        grey = seg.image.convert("L").getpixel((0, 0))
        for label in (1, 2, 3):
            expected = grey + (np.array(class_colour(label)) - grey) * 0.55
            assert np.abs(top[seg.labels == label] - expected).max() <= 1

    def test_legend_lies_below(self):
        seg = result(3, size=(200, 300))
        picture = np.asarray(seg.overlay())
        assert picture.shape[0] > 200
        assert picture.shape[1] == 300
        assert tuple(picture[-1, -1]) == (255, 255, 255)
        colours = {tuple(colour) for colour in picture[200:].reshape(-1, 3).tolist()}
        assert {class_colour(label) for label in (1, 2, 3)} <= colours

    @pytest.mark.parametrize("size", [(1, 1), (5, 400), (400, 5), (33, 31)], ids=str)
    def test_small_and_narrow_images_have_a_readable_legend(self, size):
        picture = result(5, size=size).overlay()
        assert picture.width == max(160, size[1])
        assert picture.height > size[0] + 11

    def test_no_legend_entry_is_cut_off(self):
        names = ("a name that goes on " * 20, "b")
        picture = np.asarray(result(names, size=(60, 200)).overlay())
        assert picture.shape[1] == 200
        assert picture[60:, -3:].min() == 255
        assert picture[60:].min() < 100

    def test_many_classes_are_shortened_to_a_number(self):
        assert result(250, size=(256, 256)).overlay().height < 256 * 3

    @pytest.mark.parametrize("name", ["猫", "кошка", "été", "two\nlines", "tab\there", "🦓", "\udce9"])
    def test_any_name_can_be_drawn(self, name):
        seg = result((name, "dog"))
        assert seg.overlay().height > 20
        assert seg.overlay(name).height > 20

    def test_no_label_at_all(self):
        assert result(3, threshold=1.0).overlay().height > 20

    def test_of_a_prompt_is_its_heat_map(self):
        seg = result(2, size=(200, 300))
        picture = np.asarray(seg.overlay("class 1")).astype(int)[:200]
        heat = seg.heatmap("class 1")
        hottest, coldest = (picture[np.unravel_index(i, heat.shape)] for i in (heat.argmax(), heat.argmin()))
        assert hottest[0] > hottest[2]
        assert coldest[2] > coldest[0]


def test_names_without_a_font_are_replaced():
    assert readable("cat", "class 1") == "cat"
    assert readable("two\n lines", "class 1") == "two lines"
    private = "\ue123\ue124"  # no font has these
    assert readable(private, "class 7") == "class 7"
    assert readable(f"caf{private}", "class 7") == "caf"
    assert font_for("cat", 12).getlength("cat") > 0


def test_palette_of_labels():
    colours = palette(256)
    assert (colours.shape, colours.dtype) == ((256, 3), np.uint8)
    assert len({tuple(colour) for colour in colours.tolist()}) == 256


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


class TestWriteWhole:
    def test_writes_and_replaces(self, tmp_path):
        path = tmp_path / "new" / "file"
        for content in (b"first", b"second"):
            write_whole(path, content)
            assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]
        assert path.stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
    def test_a_failure_leaves_what_was_there(self, tmp_path, monkeypatch, error):
        path = tmp_path / "file"
        path.write_bytes(b"before")

        def fail(*_):
            raise error

        monkeypatch.setattr("os.replace", fail)
        with pytest.raises(type(error)):
            write_whole(path, b"after")
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]

    def test_names_as_long_as_the_file_system_takes(self, tmp_path):
        path = tmp_path / ("x" * 255)
        write_whole(path, b"content")
        assert path.read_bytes() == b"content"

    def test_a_folder_in_the_way(self, tmp_path):
        (tmp_path / "file").mkdir()
        with pytest.raises(OSError, match="file"):
            write_whole(tmp_path / "file", b"content")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def same(one, other):
    assert one.classes == other.classes
    assert one.size == other.size
    torch.testing.assert_close(one.cosines, other.cosines, rtol=1e-4, atol=1e-5)


class TestSegment:
    def test_one_image(self, small_model, picture):
        seg = small_model.segment(picture(50, 70), ["cat", "dog"], size=64)
        assert isinstance(seg, Segmentation)
        assert (seg.size, seg.classes, seg.source) == ((50, 70), ("cat", "dog"), None)
        assert seg.cosines.shape == (2, 2, 3)
        assert np.abs(seg.scores).max() <= 1 + 1e-5
        assert seg.scores.std() > 0

    def test_a_file(self, small_model, folder):
        for path in (folder / "a.png", str(folder / "a.png")):
            assert small_model.segment(path, "cat", size=64).source == str(folder / "a.png")

    @pytest.mark.parametrize("batch_size", [1, 2, 8])
    def test_a_mixed_batch_equals_one_by_one(self, small_model, folder, picture, batch_size):
        mixed = [
            picture(48, 64, 1),
            folder / "b.jpg",
            np.asarray(picture(90, 40, 2)),
            torch.from_numpy(np.asarray(picture(48, 64, 3)).copy()).permute(2, 0, 1),
            picture(200, 30, 4),
            picture(48, 64, 5).convert("L"),
        ]
        together = small_model.segment(mixed, ["cat", ("dog", "hound")], size=64, batch_size=batch_size)
        assert len(together) == len(mixed)
        for image, seg in zip(mixed, together, strict=True):
            same(seg, small_model.segment(image, ["cat", ("dog", "hound")], size=64))

    @pytest.mark.parametrize("kind", ["array", "tensor", "tuple"])
    def test_ways_to_give_a_batch(self, small_model, picture, kind):
        listed = [picture(48, 64, seed) for seed in range(3)]
        stacked = np.stack([np.asarray(image) for image in listed])
        batch = {"array": stacked, "tensor": torch.from_numpy(stacked).permute(0, 3, 1, 2), "tuple": tuple(listed)}[
            kind
        ]
        for seg, image in zip(small_model.segment(batch, "cat", size=64), listed, strict=True):
            same(seg, small_model.segment(image, "cat", size=64))

    def test_no_image(self, small_model):
        assert small_model.segment([], ["cat"]) == []

    def test_prompts_for_each_image(self, small_model, picture):
        images = [picture(48, 64, 0), picture(48, 64, 1), picture(64, 48, 2)]
        prompts = [["cat"], ["dog", ("car", "bus")], {"pet": ["cat", "dog"]}]
        results = small_model.segment(images, prompts, size=64)
        assert [seg.classes for seg in results] == [("cat",), ("dog", "car"), ("pet",)]
        for image, own, seg in zip(images, prompts, results, strict=True):
            same(seg, small_model.segment(image, own, size=64))

    def test_synonyms_take_the_better_score(self, small_model, picture):
        image = picture()
        apart = small_model.segment(image, ["cat", "dog"], size=64)
        for prompts in ([("cat", "dog")], {"pet": ["cat", "dog"]}):
            together = small_model.segment(image, prompts, size=64)
            np.testing.assert_allclose(together.scores[0], apart.scores.max(0), atol=1e-6)

    def test_defaults_and_overrides(self, small_model, picture):
        several, alone = (small_model.segment(picture(), p, size=64) for p in (["cat", "dog"], "cat"))
        assert (several.threshold, alone.threshold) == (0.85, 0.5)
        assert several.logit_scale == 100
        chosen = small_model.segment(picture(), "cat", size=64, threshold=0.0, logit_scale=7.0)
        assert (chosen.threshold, chosen.logit_scale) == (0.0, 7.0)

    @pytest.mark.parametrize(
        ("resize", "grid"),
        [("shorter", (2, 4)), ("squash", (2, 2)), ("exact", (3, 6))],
        ids=["shorter", "squash", "exact"],
    )
    def test_resize_policies(self, small_model, picture, resize, grid):
        seg = small_model.segment(picture(100, 190), "cat", size=64, resize=resize)
        assert tuple(seg.cosines.shape[1:]) == grid
        assert seg.labels.shape == (100, 190)

    @pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (2, 3)], ids=str)
    def test_tiny_images(self, small_model, picture, size):
        seg = small_model.segment(picture(*size), ["cat", "dog"], size=32)
        assert seg.labels.shape == size
        assert np.isfinite(seg.confidence).all()

    def test_templates_matter(self, small_model, picture):
        one, other = (small_model.segment(picture(), "cat", size=64, templates=t) for t in ("photo", "no {} here"))
        assert np.abs(one.scores - other.scores).max() > 1e-6

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ({"prompts": []}, "at least one class"),
            ({"prompts": None}, "prompts must be"),
            ({"prompts": [["cat"], ["dog"]]}, "2 lists for 1 images"),
            ({"size": 0}, "size must be"),
            ({"batch_size": 0}, "batch_size must be"),
            ({"threshold": 1.5}, "threshold must be in 0..1"),
            ({"threshold": float("nan")}, "threshold must be in 0..1"),
            ({"resize": "crop"}, "shorter, squash, exact"),
            ({"templates": "photos"}, "named ones: photo, imagenet"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_wrong_arguments_say_what_is_right(self, small_model, picture, arguments, reason):
        with pytest.raises(ValueError, match=reason):
            small_model.segment(picture(), **{"prompts": "cat", "size": 64, **arguments})

    def test_unusable_images(self, small_model, picture, tmp_path):
        for images, reason in (
            (tmp_path / "no.png", r"no\.png: there is no such file"),
            ([picture(), tmp_path], "a folder"),
            (np.zeros((4, 4, 3), int), "int64"),
            (np.zeros((2, 4, 4, 7), np.uint8), r"\[4, 4, 7\]"),
        ):
            with pytest.raises(ImageError, match=reason):
                small_model.segment(images, "cat", size=64)

    def test_a_thread_of_an_image_is_refused_at_once(self, small_model):
        with pytest.raises(ImageError, match="squash"):
            small_model.segment(np.zeros((1, 5000, 3), np.uint8), "cat", size=448)

    def test_an_unknown_setting_is_no_setting(self, small_model, picture):
        with pytest.raises(TypeError, match="tresh"):
            small_model.segment(picture(), "cat", tresh=0.5)


def test_background_classes_compete_and_are_labelled_zero(small_model, picture):
    """Their labels are those of the whole set of classes, with the background ones put to 0."""
    every = small_model.segment(picture(), ["cat", "dog", "wall", "sky"], size=96, threshold=0)
    some = small_model.segment(picture(), ["cat", "dog"], background=["wall", "sky"], size=96, threshold=0)
    assert some.classes == ("cat", "dog")
    assert (some.labels == np.where(every.labels > 2, 0, every.labels)).all()
    np.testing.assert_allclose(some.confidence, every.confidence, rtol=1e-5)
    assert some.scores.shape == (2, *every.scores.shape[1:])
    assert some.heatmaps.shape == (2, *some.size)


def test_a_single_prompt_with_background_is_decided_by_the_softmax(small_model, picture):
    result = small_model.segment(picture(), "cat", background=[("wall", "room")], size=96, threshold=0.5)
    assert result.threshold == 0.5
    assert ((result.labels == 1) <= (result.confidence >= 0.5)).all()
    assert not np.allclose(result.confidence, result.heatmap("cat"))


@pytest.mark.parametrize("logit_scale", [0, -5.0, float("nan")])
def test_logit_scale_must_be_positive(small_model, picture, logit_scale):
    with pytest.raises(ValueError, match="logit_scale must be positive"):
        small_model.segment(picture(), ["cat", "dog"], size=64, logit_scale=logit_scale)
