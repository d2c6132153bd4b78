"""Images with the right label of each pixel, and the classes that labels stand for. Needs no torch."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from ..images import ImageError, ImageLike
from ..prompts import TextClass, read_class_lines
from .label_images import label_size

CLASSES = Path(str(files("gem_fast") / "evaluation" / "classes"))


@dataclass(frozen=True)
class Dataset:
    """Images with the right label of each pixel.

    Attributes:
        name: what it is called.
        classes: of labels 0, 1, ... in order.
        background: label 0 is what no class names.
        images: their files, or anything else that `load_image` takes.
        truths: where the labels of each are.
        read: those of an image, `[H, W]` int32, `IGNORED` where they don't count.
        kind: which set of `DATA` it is; None for a folder of one's own.
    """

    name: str
    classes: tuple[TextClass, ...]
    background: bool
    images: tuple[ImageLike, ...] = field(repr=False)
    truths: tuple[Path | int, ...] = field(repr=False)
    read: Callable[[Path | int], np.ndarray] = field(repr=False)
    kind: str | None = None

    def truth(self, index: int) -> np.ndarray:
        return self.read(self.truths[index])

    def label(self, index: int) -> str:
        """What an image is called in errors."""
        image = self.images[index]
        return str(image) if isinstance(image, str | Path) else f"{self.name} {index}"

    def with_classes(self, listed: Mapping[str, Sequence[str]]) -> "Dataset":
        """With other words: one class for each in the order of labels, that of the background too, or without it.

        Raises:
            ValueError: there are more or fewer.
        """
        given = tuple(TextClass(name, tuple(dict.fromkeys(words))) for name, words in listed.items())
        if self.background and len(given) == len(self.classes) - 1:
            given = (self.classes[0], *given)
        if len(given) != len(self.classes):
            raise ValueError(
                f"{self.name} has {len(self.classes)} classes{', background among them' if self.background else ''}, "
                f"and the prompts file names {len(given)}; write one a line in the order of the labels"
            )
        return replace(self, classes=given)


def checked_truth(dataset: Dataset, index: int, size: tuple[int, int]) -> np.ndarray:
    """The labels of an image of height and width; ImageError if they are of another size."""
    check_label_size(dataset, index, size)
    return dataset.truth(index)


def check_label_size(dataset: Dataset, index: int, size: tuple[int, int]) -> None:
    """ImageError if a label image's header tells another size than that of its image, height and width."""
    place = dataset.truths[index]
    if isinstance(place, Path) and (found := label_size(place)) != size:
        raise ImageError(
            f"{dataset.label(index)}: the image is {size[1]}×{size[0]} and its labels are {found[1]}×{found[0]}; "
            "they must be of one size"
        )


def class_list(name: str) -> tuple[TextClass, ...]:
    """A list of this package: each class's name, and the words that stand for it."""
    return read_classes(CLASSES / f"{name}.txt")


def read_classes(path: Path, gaps: bool = True) -> tuple[TextClass, ...]:
    """The classes of labels 0, 1, ..., from a file with one a line, its name first.

    Args:
        path: the file.
        gaps: empty lines and `#` are passed over, as in other prompt files; or they are refused, where lines count
            labels.

    Raises:
        ValueError: it is no such file, or two lines have one name, so that the labels behind would be others.
    """
    classes = tuple(TextClass(words[0], tuple(dict.fromkeys(words))) for words in read_class_lines(path, gaps))
    if twice := [name for name, count in Counter(each.name for each in classes).items() if count > 1]:
        raise ValueError(f"{path} names {', '.join(twice)} more than once: each label has a line and a name of its own")
    return classes
