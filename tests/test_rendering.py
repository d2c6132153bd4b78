"""Overlays, legends and colours."""

from types import SimpleNamespace

import numpy as np
import pytest

from gem_fast.rendering import _shortened, class_colour, font_for, palette, readable
from tests.results import result


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

    @pytest.mark.parametrize("name", ["m" * 300_000, "a name that goes on " * 20, "ab"])
    def test_a_name_is_cut_where_it_has_to_be(self, name):
        font, measured = font_for("a", 12), []
        counting = SimpleNamespace(getlength=lambda text: measured.append(text) or font.getlength(text))
        text = _shortened(name, "12%", counting, 200)
        kept = len(text.removesuffix(" 12%").removesuffix("..."))
        assert font.getlength(text) <= 200 < font.getlength(f"{name[: kept + 2]}... 12%") or name == "ab"
        assert len(measured) < 25

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
