"""Sliding windows: mmseg's rule, whatever the engine, the size that is asked for and how windows are batched."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gem_fast.batch import segment_files
from gem_fast.images import MAX_WINDOWED_PIXELS, ImageError, load_image
from gem_fast.runtime.decoders import NumpyDecoder
from gem_fast.windows import WindowDecoder, Windows, parse_windows, windowed_size


def by_the_rule(scores, shape, side, stride, patch):
    """mmseg's: crops' scores upsampled, summed where they lie, and divided by how many cover a pixel."""
    height, width = shape
    tall, wide = min(side, height), min(side, width)
    total, count = torch.zeros(len(scores[0]), height, width, dtype=torch.float64), torch.zeros(height, width)
    scores = iter(scores)
    for i in range(max(height - tall + stride - 1, 0) // stride + 1):
        for j in range(max(width - wide + stride - 1, 0) // stride + 1):
            bottom, right = min(i * stride + tall, height), min(j * stride + wide, width)
            place = slice(max(bottom - tall, 0), bottom), slice(max(right - wide, 0), right)
            crop = torch.from_numpy(next(scores))[None].double()
            total[(slice(None), *place)] += F.interpolate(crop, (tall, wide), mode="bilinear")[0]
            count[place] += 1
    assert next(scores, None) is None
    return (total / count).numpy()


@pytest.fixture
def random_scores():
    def make(layout, classes, seed=0):
        generator, (tall, wide) = np.random.default_rng(seed), layout.crop
        shape = len(layout), classes, tall // layout.rows.patch, wide // layout.rows.patch
        each = generator.standard_normal(shape).astype(np.float32)
        room = layout.empty(classes)
        for index, scores in enumerate(each):
            layout.put(room, index, scores)
        return each, room

    return make


class TestDecoder:
    @pytest.mark.parametrize(
        ("shape", "side", "stride"),
        [((96, 144), 64, 32), ((80, 112), 48, 48), ((128, 32), 48, 16), ((48, 200), 64, 24)],
    )
    def test_a_pixel_has_the_mean_of_its_windows(self, random_scores, shape, side, stride):
        layout = Windows(side, stride, 8).layout(shape)
        each, room = random_scores(layout, 5)
        wanted = by_the_rule(each, shape, side, stride, 8)
        decoder = WindowDecoder(layout)
        for place, tile in decoder.tiles(room, shape):
            np.testing.assert_allclose(tile, wanted[(slice(None), *place)], atol=2e-6)
        labels, confidence = decoder.labels(room, 4, shape, 3.0, 0.4)
        softmax = np.exp(3 * wanted) / np.exp(3 * wanted).sum(0)
        np.testing.assert_allclose(confidence, softmax.max(0), atol=1e-5)
        best = np.where((softmax.max(0) >= 0.4) & (wanted.argmax(0) < 4), wanted.argmax(0) + 1, 0)
        assert (labels == best).mean() > 0.999
        low, high = wanted.min((1, 2), keepdims=True), wanted.max((1, 2), keepdims=True)
        np.testing.assert_allclose(decoder.heatmaps(room, shape), (wanted - low) / (high - low), atol=2e-6)

    def test_one_window_is_the_plain_way_at_any_size(self, random_scores):
        layout = Windows(96, 48, 8).layout((64, 96))
        _, room = random_scores(layout, 7)
        for size in ((64, 96), (37, 211), (129, 5)):
            plain, windowed = (d.labels(room, 7, size, 9.0, 0.3) for d in (NumpyDecoder(), WindowDecoder(layout)))
            assert (plain[0] == windowed[0]).mean() > 0.999
            np.testing.assert_allclose(windowed[1], plain[1], atol=1e-5)
        np.testing.assert_allclose(WindowDecoder(layout).scores(room), room, atol=1e-6)

    def test_the_threshold_itself_is_no_background_and_a_flat_map_is_empty(self):
        layout = Windows(16, 8, 8).layout((16, 24))
        decoder, room = WindowDecoder(layout), layout.empty(2)
        room[:] = 0.25
        labels, confidence = decoder.labels(room, 2, (16, 24), 3.0, 0.5)
        assert (labels == 1).all()
        assert (confidence == 0.5).all()
        assert not decoder.labels(room, 2, (16, 24), 3.0, 0.501)[0].any()
        assert not decoder.heatmaps(room, (16, 24)).any()

    @pytest.mark.parametrize("shape", [(16, 3200), (3200, 16)])
    def test_a_thread_takes_tiles_whose_weights_are_bounded(self, random_scores, monkeypatch, shape):
        """One pixel of it has many windows, of which all together would be gigabytes."""
        layout, size = Windows(16, 8, 8).layout(shape), (shape[0] // 16, shape[1] // 16)
        each, room = random_scores(layout, 2)
        whole = WindowDecoder(layout).labels(room, 2, size, 3.0, 0.4)
        monkeypatch.setattr("gem_fast.windows._TILE_ELEMENTS", 1 << 10)
        axis = max((layout.rows, layout.columns), key=lambda each: each.length)
        assert 1 < axis.most(200) < 200
        assert axis.weights(200, 0, axis.most(200))[0].size < 2 << 10
        for tiled, one in zip(WindowDecoder(layout).labels(room, 2, size, 3.0, 0.4), whole, strict=True):
            np.testing.assert_allclose(tiled, one, atol=1e-6)
        wanted = by_the_rule(each, shape, 16, 8, 8)
        np.testing.assert_allclose(WindowDecoder(layout)._upsampled(room, shape), wanted, atol=2e-6)

    def test_many_classes_take_tiles_of_a_few_pixels(self, random_scores):
        layout = Windows(32, 16, 8).layout((48, 64))
        _, room = random_scores(layout, 3000)
        largest = max(tile.size for _, tile in WindowDecoder(layout).tiles(room, (300, 400)))
        assert largest <= 1 << 18


class TestEngine:
    def test_equals_windows_taken_one_by_one(self, small_model, picture):
        image, words = picture(128, 192), small_model.encode_text(["cat", "dog", "sky"])
        result = small_model.segment(image, ["cat", "dog", "sky"], resize="exact", window=96, stride=64, batch_size=2)
        layout = Windows(96, 64, 32).layout((128, 192))
        crops = [small_model.patch_features(crop[None], (96, 96)) for crop in layout.crops(np.asarray(image))]
        scores = [small_model.scores(each, [0], words, [1, 1, 1])[0].numpy() for each in crops]
        logits = 1000 * by_the_rule(scores, (128, 192), 96, 64, 32)
        softmax = np.exp(logits - logits.max(0))
        softmax /= softmax.sum(0)
        np.testing.assert_allclose(result.confidence, softmax.max(0), atol=1e-4)

    def test_one_window_over_the_image_is_bit_for_bit_as_without(self, small_model, picture):
        plain, windowed = (small_model.segment(picture(), ["cat", "dog"], size=64, **w) for w in ({}, {"window": 96}))
        assert np.array_equal(plain.confidence, windowed.confidence)

    def test_windows_of_several_images_and_prompts_share_forwards(self, small_model, picture):
        images = [picture(40, 64, 1), picture(64, 48, 2), picture(30, 90, 3)]
        prompts = [["cat", "dog"], ["sky", "sea", "tree"], ["cat", "dog"]]
        settings = {"size": 64, "window": 64, "stride": 32}
        together = small_model.segment(images, prompts, **settings, batch_size=3)
        for image, asked, result in zip(images, prompts, together, strict=True):
            alone = small_model.segment(image, asked, **settings)
            np.testing.assert_allclose(result.confidence, alone.confidence, atol=1e-4)
            assert result.scores.shape == alone.scores.shape
            assert result.heatmaps.shape == (len(asked), *result.size)

    def test_files_and_streams_have_the_labels_of_segment(self, small_model, folder, tmp_path):
        settings = {"size": 64, "window": 64, "stride": 32, "threshold": 0.0}
        segment_files(small_model, folder, ["cat", "dog"], tmp_path / "out", workers=1, **settings)
        names = ["a.png", "b.jpg", "sub/c.png"]
        streamed = small_model.stream([folder / name for name in names], ["cat", "dog"], **settings)
        for name, result in zip(names, streamed, strict=True):
            written = Image.open((tmp_path / "out" / name).with_suffix(".labels.png"))
            assert np.array_equal(np.asarray(written), result.labels)


class TestArguments:
    def test_sides_are_rounded_to_the_patch_and_told(self):
        with pytest.warns(UserWarning, match="windows of 224 every 112 pixels"):
            assert parse_windows(226, 110, 16) == Windows(224, 112, 16)
        assert parse_windows(224, None, 16) == Windows(224, 112, 16)
        assert parse_windows(None, None, 16) is None

    @pytest.mark.parametrize(
        ("window", "stride", "said"),
        [(None, 8, "give window"), (64, 0, "1 to window"), (64, 65, "1 to window"), (1 << 20, 64, "tokens")],
    )
    def test_wrong_ones_say_what_is_right(self, window, stride, said):
        with pytest.raises(ValueError, match=said):
            parse_windows(window, stride, 16)

    def test_inputs_are_bounded(self):
        assert windowed_size((9000, 12_000), 448, "exact", 16) == (8992, 12_000)
        with pytest.raises(ImageError, match="smaller size"):
            windowed_size((9000, 12_000), 20_000, "shorter", 16)

    def test_files_above_the_plain_limit_are_read_for_windows_alone(self, tmp_path, recwarn):
        path = tmp_path / "wide.png"
        Image.new("1", (12_000, 9000)).save(path)
        with pytest.raises(ImageError, match="more than"):
            load_image(path)
        assert load_image(path, MAX_WINDOWED_PIXELS).size == (12_000, 9000)
        recwarn.clear()
