"""`GemModel.segment` on every way of calling it."""

import numpy as np
import pytest
import torch

from gem_fast import ImageError, Segmentation


def same(one, other):
    assert one.classes == other.classes
    assert one.size == other.size
    torch.testing.assert_close(one.all_scores, other.all_scores, rtol=1e-4, atol=1e-5)


class TestSegment:
    def test_one_image(self, small_model, picture):
        seg = small_model.segment(picture(50, 70), ["cat", "dog"], size=64)
        assert isinstance(seg, Segmentation)
        assert (seg.size, seg.classes, seg.source) == ((50, 70), ("cat", "dog"), None)
        assert seg.all_scores.shape == (2, 2, 3)
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
        assert several.logit_scale == 1000
        chosen = small_model.segment(picture(), "cat", size=64, threshold=0.0, logit_scale=7.0)
        assert (chosen.threshold, chosen.logit_scale) == (0.0, 7.0)

    @pytest.mark.parametrize(
        ("resize", "grid"),
        [("shorter", (2, 4)), ("squash", (2, 2)), ("exact", (3, 6))],
        ids=["shorter", "squash", "exact"],
    )
    def test_resize_policies(self, small_model, picture, resize, grid):
        seg = small_model.segment(picture(100, 190), "cat", size=64, resize=resize)
        assert tuple(seg.all_scores.shape[1:]) == grid
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
            ({"background": 1}, "prompts must be"),
            ({"background": iter(())}, "at least one class"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_wrong_arguments_say_what_is_right(self, small_model, picture, arguments, reason):
        with pytest.raises(ValueError, match=reason):
            small_model.segment(picture(), **{"prompts": "cat", "size": 64, **arguments})

    @pytest.mark.parametrize(
        ("name", "right"),
        [
            ("size", "a positive number of pixels"),
            ("batch_size", "1 or more, a whole number"),
            ("window", "a positive number of pixels"),
            ("stride", "1 to window, 64"),
            ("threshold", r"in 0\.\.1"),
            ("logit_scale", "positive"),
        ],
    )
    @pytest.mark.parametrize(
        "value", [0.5, -1, float("nan"), float("inf"), "64", [64], np.array([64]), 64j, True, np.True_], ids=repr
    )
    def test_what_is_no_number_is_named_at_once(self, small_model, picture, name, right, value):
        if (name, value) in (("threshold", 0.5), ("logit_scale", 0.5)):
            pytest.skip("a number as any")
        settings = {"size": 64, **({"window": 64} if name == "stride" else {}), name: value}
        for call in (small_model.segment, small_model.stream):
            with pytest.raises(ValueError, match=f"^{name} must be {right}.*, got "):
                call([picture()], ["cat", "dog"], **settings)

    @pytest.mark.parametrize("number", [np.float32, np.array, torch.tensor], ids=["numpy", "array", "tensor"])
    def test_numbers_of_any_library(self, small_model, picture, number):
        plain = {"size": 96, "threshold": 0.5, "logit_scale": 20.0, "window": 64, "stride": 32}
        one, other = (
            small_model.segment(picture(), ["cat", "dog"], **{name: make(each) for name, each in plain.items()})
            for make in (float, number)
        )
        assert np.array_equal(one.labels, other.labels)
        assert type(other.threshold) is float

    def test_backgrounds_come_as_prompts_do(self, small_model, picture):
        listed = small_model.segment(picture(), "cat", size=64, background=["wall", "sky"])
        same(listed, small_model.segment(picture(), "cat", size=64, background=np.array(["wall", "sky"])))
        alone = small_model.segment(picture(), "cat", size=64)
        for none in ((), None, "", {}, np.array([])):
            same(alone, small_model.segment(picture(), "cat", size=64, background=none))

    def test_scores_are_the_callers_to_change(self, small_model, picture):
        kept, changed = (small_model.segment(picture(), ["cat", "dog"], size=64) for _ in range(2))
        changed.scores[:] = 0
        assert np.array_equal(changed.labels, kept.labels)

    def test_a_result_of_a_batch_keeps_no_others_scores(self, small_model, picture):
        results = small_model.segment([picture(48, 64, seed) for seed in range(3)], ["cat", "dog"], size=64)
        assert all(each.all_scores.untyped_storage().nbytes() == each.all_scores.nbytes for each in results)

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
