"""Readers of data sets: layouts, encodings, and what is said of a wrong one."""

import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gem_fast.evaluation import PROTOCOLS
from gem_fast.evaluation.datasets import open_data
from gem_fast.evaluation.label_images import label_size, read_label_image, read_names
from gem_fast.evaluation.labelled import checked_truth, class_list
from gem_fast.evaluation.metrics import IGNORED
from gem_fast.evaluation.paper import paper_figure
from gem_fast.images import ImageError

VALUES = np.array([[0, 1, 2], [19, 20, 255]], np.uint8)


def put(path, values=None, palette=False):
    """A label PNG, or a photograph of its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (3, 2), "red") if values is None else Image.fromarray(values)
    if palette:
        picture.putpalette(list(range(256)) * 3)
    picture.save(path)


def voc(root, year, labels, split):
    folder = root / "VOCdevkit" / year
    put(folder / "JPEGImages/a_1.jpg")
    put(folder / f"{labels}/a_1.png", VALUES, palette=True)
    (folder / split).parent.mkdir(parents=True)
    (folder / split).write_text("a_1\n")


@pytest.fixture
def root(tmp_path):
    voc(tmp_path, "VOC2012", "SegmentationClass", "ImageSets/Segmentation/val.txt")
    voc(tmp_path, "VOC2010", "SegmentationClassContext", "ImageSets/SegmentationContext/val.txt")
    put(tmp_path / "ADEChallengeData2016/images/validation/b.jpg")
    put(tmp_path / "ADEChallengeData2016/annotations/validation/b.png", VALUES)
    put(tmp_path / "coco_stuff164k/images/val2017/c.jpg")
    put(tmp_path / "cityscapes/leftImg8bit/val/ulm/d_leftImg8bit.png")
    put(tmp_path / "cityscapes/gtFine/val/ulm/d_gtFine_labelTrainIds.png", VALUES)
    return tmp_path


class TestLayouts:
    @pytest.mark.parametrize(
        ("name", "count", "wanted"),
        [
            ("voc21", 21, [[0, 1, 2], [19, 20, IGNORED]]),
            ("voc20", 20, [[IGNORED, 0, 1], [18, 19, IGNORED]]),
            ("context60", 60, [[0, 1, 2], [19, 20, IGNORED]]),
            ("context59", 59, [[IGNORED, 0, 1], [18, 19, IGNORED]]),
            ("ade20k", 150, [[IGNORED, 0, 1], [18, 19, IGNORED]]),
            ("cityscapes", 19, [[0, 1, 2], [IGNORED, IGNORED, IGNORED]]),
        ],
    )
    def test_labels_are_read_as_each_set_encodes_them(self, root, name, count, wanted):
        dataset = open_data(name, root)
        assert (len(dataset.classes), len(dataset.images)) == (count, 1)
        assert dataset.truth(0).tolist() == wanted
        assert checked_truth(dataset, 0, (2, 3)).shape == (2, 3)

    # Ids of the raw maps, with their gaps: person, fire hydrant, stop sign; toothbrush, banner (stuff), none.
    RAW = np.array([[0, 10, 12], [89, 91, 255]], np.uint8)

    @pytest.mark.parametrize(
        ("name", "wanted"),
        [("coco-stuff", [[0, 10, 11], [79, 80, IGNORED]]), ("coco-object", [[1, 11, 12], [80, 0, 0]])],
    )
    def test_raw_and_converted_maps_of_coco_are_the_same(self, root, name, wanted):
        folder = root / "coco_stuff164k/annotations/val2017"
        put(folder / "c.png", self.RAW)
        assert open_data(name, root).truth(0).tolist() == wanted
        (folder / "c.png").unlink()
        values = np.array(wanted)
        values[values == IGNORED] = 255
        kind = "label" if name == "coco-stuff" else "instance"
        put(folder / f"c_{kind}TrainIds.png", values.astype(np.uint8))
        assert open_data(name, root).truth(0).tolist() == wanted

    @pytest.mark.parametrize(
        "gone",
        [
            "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
            "VOCdevkit/VOC2012/JPEGImages/a_1.jpg",
            "VOCdevkit/VOC2012/SegmentationClass/a_1.png",
        ],
    )
    def test_a_wrong_layout_is_told_by_what_was_expected_where(self, root, gone):
        (root / gone).unlink()
        with pytest.raises(ValueError, match="voc21: expected .*" + gone.rsplit("/", 1)[1]):
            open_data("voc21", root)

    def test_a_missing_root_and_an_unknown_name_say_what_is_right(self, tmp_path):
        with pytest.raises(ValueError, match="--root"):
            open_data("voc21", None)
        with pytest.raises(ValueError, match="VOCdevkit/VOC2012"):
            open_data("voc21", tmp_path)
        with pytest.raises(ValueError, match="cityscapes"):
            open_data("voc", tmp_path)

    def test_a_folder_of_ones_own(self, tmp_path):
        put(tmp_path / "own/images/x.png")
        put(tmp_path / "own/labels/x.png", np.array([[0, 1, 2], [1, 2, 255]], np.uint8))
        (tmp_path / "own/classes.txt").write_text("background\ncat, kitty\ndog\n\n \n")
        dataset = open_data(str(tmp_path / "own"), None)
        assert dataset.name == open_data("own/images/..", tmp_path).name == "own"
        assert dataset.background
        assert dataset.kind is None
        assert [each.name for each in dataset.classes] == ["background", "cat", "dog"]
        assert dataset.truth(0).tolist() == [[0, 1, 2], [1, 2, IGNORED]]
        with pytest.raises(ImageError, match="one size"):
            checked_truth(dataset, 0, (3, 2))
        assert dataset.with_classes({"puss": ["puss"], "hound": ["hound"]}).classes[0].name == "background"
        with pytest.raises(ValueError, match="3 classes"):
            dataset.with_classes({"puss": ["puss"]})

    @pytest.mark.parametrize(
        ("name", "gone", "said"),
        [
            ("ade20k", "ADEChallengeData2016/annotations/validation/b.png", "the label image .*validation/b.png"),
            ("ade20k", "ADEChallengeData2016/images/validation/b.jpg", "photographs in .*images/validation"),
            ("coco-stuff", "coco_stuff164k/images/val2017/c.jpg", "photographs in .*val2017"),
            ("coco-object", "nothing", r"the folder .*annotations/val2017 \(a label PNG"),
            ("cityscapes", "cityscapes/leftImg8bit/val/ulm/d_leftImg8bit.png", r"val/CITY/\*_leftImg8bit.png"),
            ("cityscapes", "cityscapes/gtFine/val/ulm/d_gtFine_labelTrainIds.png", "d_gtFine_labelTrainIds.png"),
            ("context59", "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt", "mmsegmentation's converter"),
        ],
    )
    def test_each_set_tells_what_was_expected_where(self, root, name, gone, said):
        (root / gone).unlink(missing_ok=True)
        with pytest.raises(ValueError, match=f"{name}: expected .*{said}"):
            open_data(name, root)

    @pytest.mark.parametrize("part", ["images", "labels", "classes.txt"])
    def test_a_folder_of_ones_own_tells_what_it_lacks(self, tmp_path, part):
        put(tmp_path / "own/images/x.png")
        put(tmp_path / "own/labels/x.png", VALUES)
        (tmp_path / "own/classes.txt").write_text("cat\ndog\n")
        place = tmp_path / "own" / part
        if place.is_dir():  # a file of that name is no folder either
            shutil.rmtree(place)
            place.write_text("")
        else:
            place.unlink()
            place.mkdir()
        with pytest.raises(ValueError, match=rf"own: expected the (file|folder) .*own/{part} \("):
            open_data(str(tmp_path / "own"), None)

    def test_two_lines_of_one_class_would_shift_the_labels(self, tmp_path):
        put(tmp_path / "own/images/x.png")
        put(tmp_path / "own/labels/x.png", VALUES)
        (tmp_path / "own/classes.txt").write_text("cat\ndog\ncat, kitten\nbird\n")
        with pytest.raises(ValueError, match=r"classes\.txt names cat more than once"):
            open_data(str(tmp_path / "own"), None)

    @pytest.fixture
    def own(self, tmp_path):
        put(tmp_path / "own/images/x.png")
        put(tmp_path / "own/labels/x.png", VALUES)
        (tmp_path / "own/classes.txt").write_text("cat\ndog\nbird\n")
        return tmp_path / "own"

    @pytest.mark.parametrize("lines", ["# pets\ncat\ndog\n", "cat\n\ndog\n", "cat\n ,\ndog\n", "cat\n# dog\n"])
    def test_lines_without_a_class_would_shift_the_labels(self, own, lines):
        (own / "classes.txt").write_text(lines)
        with pytest.raises(ValueError, match=r"classes\.txt, line [12] names no class, and lines count labels"):
            open_data(str(own), None)

    def test_labels_without_a_class_are_told(self, own):
        with pytest.raises(
            ImageError, match=r"x\.png has the label 20, .* has 3 lines, for 0 to 2; 255 counts nowhere"
        ):
            open_data(str(own), None).truth(0)
        (own / "classes.txt").write_text("".join(f"class {k}\n" for k in range(255)))
        assert open_data(str(own), None).truth(0).tolist() == [[0, 1, 2], [19, 20, IGNORED]]
        (own / "classes.txt").write_text("".join(f"class {k}\n" for k in range(300)))
        Image.fromarray(np.array([[0, 255, 299], [1, 2, 65535]], np.uint16)).save(own / "labels/x.png")
        assert open_data(str(own), None).truth(0).tolist() == [[0, 255, 299], [1, 2, IGNORED]]

    def test_label_images_without_a_photograph_are_told(self, own):
        put(own / "labels/y.png", VALUES)
        put(own / "labels/._x.png", VALUES)
        with pytest.warns(UserWarning, match=r"without a photograph are left out, 1 of them: .*y\.png"):
            open_data(str(own), None)

    def test_photographs_of_one_label_image_would_count_twice(self, own, root):
        put(own / "images/x.jpg")
        with pytest.raises(ValueError, match=r"labels/x\.png would count 2 times, for .*x\.jpg, .*x\.png"):
            open_data(str(own), None)
        (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text("a_1\na_1\n")
        with pytest.raises(ValueError, match=r"a_1\.png would count 2 times"):
            open_data("voc21", root)

    def test_links_that_lead_nowhere_are_told(self, own, root):
        places = {
            str(own): own / "images/z.png",
            "ade20k": root / "ADEChallengeData2016/images/validation/z.jpg",
            "cityscapes": root / "cityscapes/leftImg8bit/val/ulm/z_leftImg8bit.png",
        }
        for name, place in places.items():
            place.symlink_to("nowhere")
            with pytest.raises(ValueError, match=f"expected the photograph .*{place.name}, and there is none"):
                open_data(name, root)
        places["cityscapes"].unlink()
        (root / "cityscapes/leftImg8bit/val/bonn").symlink_to("nowhere")
        with pytest.raises(ValueError, match=r"expected the folder .*bonn"):
            open_data("cityscapes", root)

    def test_a_folder_that_is_called_as_a_set_is_ones_own(self, own):
        own.rename(own.with_name("voc21"))
        dataset = open_data(str(own.with_name("voc21")), None)
        assert (dataset.name, dataset.kind) == ("voc21", None)
        assert PROTOCOLS["sclip"].of(dataset.kind).logit_scale == 40
        assert paper_figure(dataset.kind, "ViT-B-16", "openai", "gem") is None

    def test_points_are_no_label_maps(self):
        with pytest.raises(ValueError, match="label maps are needed"):
            open_data("openimages-points", None)

    def test_files_that_macos_puts_beside_each_are_none_of_a_set(self, root):
        for place in (
            "ADEChallengeData2016/images/validation/._b.jpg",
            "cityscapes/leftImg8bit/val/ulm/._d_leftImg8bit.png",
        ):
            (root / place).write_bytes(b"Mac OS X")
        for name in ("ade20k", "cityscapes"):
            assert len(open_data(name, root).images) == 1

    def test_an_empty_list_says_what_to_write(self, root):
        (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text("\n")
        with pytest.raises(ValueError, match=r"val\.txt is empty; write one name of an image a line"):
            open_data("voc20", root)

    def test_scenes_are_part_of_the_package(self):
        dataset = open_data("scenes", None)
        assert (len(dataset.images), len(dataset.classes)) == (200, 98)
        assert set(np.unique(dataset.truth(0))) > {0}


@pytest.mark.parametrize(
    ("name", "count"),
    [("voc", 20), ("context", 59), ("ade20k", 150), ("coco-object", 80), ("coco-stuff", 171), ("cityscapes", 19)],
)
def test_lists_have_a_class_for_each_label(name, count):
    assert len(class_list(name)) == count


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_label_images_of_few_bits_have_their_values(tmp_path, bits):
    """As those that make PNGs smaller write them; decoders make a picture of them, whose largest value is white."""
    values = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8) & ((1 << bits) - 1)
    singles = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :]
    lines = b"".join(b"\0" + line.tobytes() for line in np.packbits(singles.reshape(2, -1), axis=1))
    header = struct.pack(">IIBBBBB", 4, 2, bits, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, each in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
        content += struct.pack(">I", len(each)) + kind + each + struct.pack(">I", zlib.crc32(kind + each))
    (tmp_path / "a.png").write_bytes(content)
    assert read_label_image(tmp_path / "a.png").tolist() == values.tolist()


def test_label_images_may_be_as_large_as_photographs_in_windows(tmp_path, recwarn):
    Image.new("L", (9_500, 9_500), 7).save(tmp_path / "large.png")
    labels = read_label_image(tmp_path / "large.png")
    assert (labels.shape, labels[-1, -1]) == ((9_500, 9_500), 7)
    assert not recwarn


class TestHostileFiles:
    def test_names_that_lead_out_of_the_folder_are_refused(self, tmp_path):
        for bad in ("../../secret", "/etc/passwd", "..", "a/b", "a\0b"):
            (tmp_path / "val.txt").write_text(f"fine\n{bad}\n")
            with pytest.raises(ValueError, match="no name of an image"):
                read_names(tmp_path / "val.txt")

    def test_pictures_bombs_and_damaged_files_are_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as some programs have it
        put(tmp_path / "colour.png")
        with pytest.raises(ImageError, match=r"colour.png: .*one channel"):
            read_label_image(tmp_path / "colour.png")
        header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        (tmp_path / "bomb.png").write_bytes(bomb + b"\0\0\0\0IDAT")
        (tmp_path / "short.png").write_bytes(bomb[:20])
        for name, said in (
            ("bomb", "60000×60000 is more than"),
            ("short", "no label PNG"),
            ("none", "there is no such"),
        ):
            for read in (read_label_image, label_size):
                with pytest.raises(ImageError, match=rf"{name}\.png: {said}"):
                    read(tmp_path / f"{name}.png")
