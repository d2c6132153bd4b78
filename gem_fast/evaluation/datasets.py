"""Labelled data sets in the layouts of torchvision and mmsegmentation, and folders of one's own. Needs no torch."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from ..errors import warn_caller
from ..images import EXTENSIONS, ImageError
from ..prompts import TextClass
from .label_images import read_label_image, read_names
from .labelled import Dataset, class_list, read_classes
from .metrics import IGNORED
from .scenes import load_scenes

_VOID, _WIDE_VOID = 255, 65_535
# Ids of COCO-Stuff's raw maps that no image has.
_COCO_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_COCO_IDS, _COCO_THINGS = 182, 80


def _voc(root: Path, name: str) -> Dataset:
    folder = _folder(root, name, "VOCdevkit/VOC2012", "VOC2012")
    names = read_names(_there(folder / "ImageSets/Segmentation/val.txt", name, "names of the 1,449 images, one a line"))
    pairs = [(folder / f"JPEGImages/{each}.jpg", folder / f"SegmentationClass/{each}.png") for each in names]
    return _named(name, "voc", pairs, background=name == "voc21")


def _context(root: Path, name: str) -> Dataset:
    folder = _folder(root, name, "VOCdevkit/VOC2010", "VOC2010")
    listed = _there(
        folder / "ImageSets/SegmentationContext/val.txt",
        name,
        "names of the images, as mmsegmentation's converter of Pascal Context writes it with SegmentationClassContext",
    )
    names = read_names(listed)
    pairs = [(folder / f"JPEGImages/{each}.jpg", folder / f"SegmentationClassContext/{each}.png") for each in names]
    return _named(name, "context", pairs, background=name == "context60")


def _ade(root: Path, name: str) -> Dataset:
    folder = _folder(root, name, "ADEChallengeData2016")
    images = _images(_there(folder / "images/validation", name, "2,000 photographs"), name)
    labels = _there(folder / "annotations/validation", name, "a PNG of labels 0 to 150 for each photograph")
    return _named(name, "ade20k", [(each, labels / f"{each.stem}.png") for each in images], background=False)


def _named(name: str, listed: str, pairs: list[tuple[Path, Path]], *, background: bool) -> Dataset:
    """A set whose label 0 is background, or else counts nowhere, with 1, 2, ... for the classes."""
    classes = class_list(listed)
    shift = 0 if background else 1
    classes = (*class_list("background"), *classes) if background else classes
    count = len(classes)

    def read(path: Path | int) -> np.ndarray:
        assert isinstance(path, Path)
        labels = read_label_image(path).astype(np.int32) - shift
        return np.where((labels >= 0) & (labels < count), labels, IGNORED)

    return _dataset(name, classes, background, pairs, read)


def _coco(root: Path, name: str) -> Dataset:
    folder = _folder(root, name, "coco_stuff164k", ".")
    images = _images(_there(folder / "images/val2017", name, "5,000 photographs"), name)
    labels = _there(folder / "annotations/val2017", name, "a label PNG for each photograph")
    ending = "_labelTrainIds.png" if name == "coco-stuff" else "_instanceTrainIds.png"
    converted = [labels / f"{each.stem}{ending}" for each in images]
    raw = not converted[0].exists()  # the maps as COCO-Stuff has them
    truths = [labels / f"{each.stem}.png" for each in images] if raw else converted
    things = name == "coco-object"
    table = _coco_table(things) if raw else None
    classes = (*class_list("background"), *class_list(name)) if things else class_list(name)

    def read(path: Path | int) -> np.ndarray:
        assert isinstance(path, Path)
        values = read_label_image(path)
        found = values.astype(np.int32) if table is None else table[np.minimum(values, _VOID)]
        return np.where(found < len(classes), found, 0 if things else IGNORED)

    return _dataset(name, classes, things, list(zip(images, truths, strict=True)), read)


@cache
def _coco_table(things: bool) -> np.ndarray:
    """COCO-Stuff's raw ids to labels: 0 to 170, or for things alone 1 to 80 with 0 for the rest."""
    table = np.full(_VOID + 1, 0 if things else _VOID, np.int32)
    used = [each for each in range(_COCO_IDS) if each not in _COCO_UNUSED]
    for label, raw in enumerate(used):
        if not things:
            table[raw] = label
        elif label < _COCO_THINGS:
            table[raw] = label + 1
    return table


def _cityscapes(root: Path, name: str) -> Dataset:
    folder = _folder(root, name, "cityscapes", ".")
    place = _there(folder / "leftImg8bit/val", name, "a folder a city with its *_leftImg8bit.png")
    labels = _there(folder / "gtFine/val", name, "a folder a city with *_gtFine_labelTrainIds.png of cityscapesscripts")
    for city in place.iterdir():
        if not city.exists():
            raise ValueError(f"{name}: expected the folder {city}, and the link leads to none")
    images = sorted(each for each in place.glob("*/*_leftImg8bit.png") if _is_shown(each))
    if not images:
        raise ValueError(f"{name}: expected {place}/CITY/*_leftImg8bit.png, and there is none")
    pairs = [
        (each, labels / each.parent.name / each.name.replace("_leftImg8bit", "_gtFine_labelTrainIds"))
        for each in images
    ]
    classes = class_list("cityscapes")

    def read(path: Path | int) -> np.ndarray:
        assert isinstance(path, Path)
        labels = read_label_image(path).astype(np.int32)
        return np.where(labels < len(classes), labels, IGNORED)

    return _dataset(name, classes, False, pairs, read)


def _own(folder: Path) -> Dataset:
    """A folder of one's own: `images`, `labels` with a PNG of the same name for each, and `classes.txt`."""
    name = folder.resolve().name
    images = _images(_there(folder / "images", name, "the photographs"), name)
    labels = _there(folder / "labels", name, "a PNG for each photograph, of its name, whose values count the classes")
    classes = read_classes(_there(folder / "classes.txt", name, "a class a line, that of label 0 first"), gaps=False)
    pairs = [(each, labels / f"{each.stem}.png") for each in images]
    background = classes[0].name.casefold() == "background"
    found = replace(_dataset(name, classes, background, pairs, _own_labels(len(classes))), kind=None)
    if alone := sorted({each for each in labels.glob("*.png") if _is_shown(each)} - set(found.truths)):
        warn_caller(f"{name}: label images without a photograph are left out, {len(alone):,} of them: {alone[0]}, ...")
    return found


def _own_labels(count: int) -> Callable[[Path | int], np.ndarray]:
    """Labels as they are, of which the greatest that the classes leave free in 8 or 16 bits doesn't count."""
    void = _VOID if count <= _VOID else _WIDE_VOID

    def read(path: Path | int) -> np.ndarray:
        assert isinstance(path, Path)
        values = read_label_image(path)
        labels = np.where(values == void, np.int32(IGNORED), values.astype(np.int32))
        if (largest := int(labels.max())) >= count:
            raise ImageError(
                f"{path} has the label {largest}, and classes.txt has {count} lines, for 0 to {count - 1}; "
                f"{void} counts nowhere"
            )
        return labels

    return read


def _scenes(root: Path | None, name: str) -> Dataset:
    scenes = load_scenes()
    nouns = sorted({noun for scene in scenes for noun in scene.masks})
    classes = tuple(TextClass(each, (each,)) for each in ("background", *nouns))

    def read(index: Path | int) -> np.ndarray:
        assert isinstance(index, int)
        masks = load_scenes()[index].masks
        labels = np.zeros(next(iter(masks.values())).shape, np.int32)
        for noun, mask in masks.items():
            labels[mask] = nouns.index(noun) + 1
        return labels

    images = tuple(scene.image for scene in scenes)
    return Dataset(name, classes, True, images, tuple(range(len(scenes))), read, kind=name)


_READERS: Mapping[str, Callable[[Path, str], Dataset]] = {
    "voc20": _voc,
    "voc21": _voc,
    "context59": _context,
    "context60": _context,
    "ade20k": _ade,
    "coco-stuff": _coco,
    "coco-object": _coco,
    "cityscapes": _cityscapes,
}
POINTS, SCENES = "openimages-points", "scenes"
DATA = (*_READERS, POINTS, SCENES)


def open_data(name: str, root: Path | None = None) -> Dataset:
    """A data set by its name, or a folder of one's own.

    Args:
        name: one of `DATA` without `openimages-points`, or a folder with `images`, `labels` and `classes.txt`.
        root: what holds `VOCdevkit`, `ADEChallengeData2016`, ...; `scenes` and folders need none.

    Raises:
        ValueError: there is no such set, or it is laid out otherwise; the message says what was expected where.
    """
    if name == POINTS:
        raise ValueError(f"{POINTS} has points, and label maps are needed here: take a set that has them")
    if name == SCENES:
        return _scenes(root, name)
    if name in _READERS:
        if root is None:
            raise ValueError(f"{name} lies below a folder: name it with --root")
        return _READERS[name](Path(root), name)
    folder = Path(root, name) if root is not None and not Path(name).is_dir() else Path(name)
    if not folder.is_dir():
        raise ValueError(f"--data {name} is neither a folder nor one of {', '.join(DATA)}")
    return _own(folder)


def _dataset(
    name: str,
    classes: tuple[TextClass, ...],
    background: bool,
    pairs: list[tuple[Path, Path]],
    read: Callable[[Path | int], np.ndarray],
) -> Dataset:
    for pair in pairs:
        for path in pair:
            if not path.is_file():
                what = "photograph" if path is pair[0] else "label image"
                raise ValueError(f"{name}: expected the {what} {path}, and there is none")
    images, truths = zip(*pairs, strict=True)
    for truth, count in Counter(truths).items():
        if count > 1:
            twice = ", ".join(str(image) for image, own in pairs if own == truth)
            raise ValueError(f"{name}: {truth} would count {count} times, for {twice}; name each photograph once")
    return Dataset(name, classes, background, images, truths, read, kind=name)


def _folder(root: Path, name: str, *inside: str) -> Path:
    """The first of the folders below the root that is there."""
    for each in inside:
        if (root / each).is_dir():
            return root / each
    raise ValueError(f"{name}: expected the folder {root / inside[0]}, and there is none; --root is what holds it")


def _there(path: Path, name: str, what: str) -> Path:
    """The path if it is there, a file if it has an ending and else a folder."""
    if not (path.is_file() if path.suffix else path.is_dir()):
        kind = "file" if path.suffix else "folder"
        raise ValueError(f"{name}: expected the {kind} {path} ({what}), and there is none")
    return path


def _is_shown(path: Path) -> bool:
    """No folder, and none of the files that macOS puts beside each; a link may lead to nothing, which is to be told."""
    return not path.is_dir() and not path.name.startswith(".")


def _images(folder: Path, name: str) -> list[Path]:
    found = sorted(each for each in folder.iterdir() if each.suffix.lower() in EXTENSIONS and _is_shown(each))
    if not found:
        raise ValueError(f"{name}: expected photographs in {folder}, and there are none")
    return found
