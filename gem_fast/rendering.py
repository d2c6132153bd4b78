"""Pictures of results: class colours, blended overlays, and the legend below them."""

import colorsys
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import chain, count

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont  # as Pillow types its default
_HEAT = np.array([[0, 0, 96], [0, 96, 255], [0, 224, 192], [255, 224, 0], [255, 64, 0], [128, 0, 0]], np.float32)
_BLEND = 0.55
_BAND = 1 << 24  # pixels
_LEGEND_ENTRIES = 24  # more would not be read
_LEGEND_WIDTH = 160  # of the narrowest images, so that names have a place
# Fonts of common systems, tried in this order where Pillow's own (ASCII) lacks a character.
_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "arial.ttf",
)


def class_colour(label: int) -> Colour:
    """Colour of a label: black for background, then hues a golden angle apart, in three rounds of brightness."""
    if label == 0:
        return (0, 0, 0)
    hue = (label - 1) * 0.61803398875 % 1.0
    saturation, value = ((0.85, 1.0), (0.6, 0.85), (1.0, 0.65))[(label - 1) // 12 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return (round(red * 255), round(green * 255), round(blue * 255))


@cache
def palette(count: int) -> np.ndarray:
    """Colours of labels 0 to count - 1: [count, 3] uint8."""
    return np.array([class_colour(label) for label in range(count)], np.uint8)


def blend_labels(image: Image.Image, labels: np.ndarray, names: tuple[str, ...]) -> Image.Image:
    """Class colours over the image in grey, background untouched, with a legend of the classes that appear."""
    counts = label_counts(labels, len(names) + 1)
    mixed = Image.composite(_over_grey(image, coloured(labels)), image, Image.fromarray(labels > 0))
    shown = [int(label) for label in np.argsort(-counts, kind="stable") if label > 0 and counts[label]]
    entries = [
        (class_colour(i), readable(names[i - 1], f"class {i}"), share(counts[i], labels.size))
        for i in shown[:_LEGEND_ENTRIES]
    ]
    if len(shown) > _LEGEND_ENTRIES:
        entries.append(((128, 128, 128), "and", f"{len(shown) - _LEGEND_ENTRIES} more"))
    return _with_legend(mixed, entries or [((0, 0, 0), label_names(names)[0], "100%")])


def label_counts(labels: np.ndarray, count: int) -> np.ndarray:
    """How many pixels have each label from 0 to count - 1."""
    flat = labels.ravel()
    if labels.dtype != np.uint8:
        bands = np.array_split(flat, 1 + flat.size // _BAND)  # bincount takes 8 bytes a pixel
        return np.sum([np.bincount(band, minlength=count) for band in bands], axis=0)
    # By Pillow, which makes no larger integers of them; as four channels, since counting one waits for itself.
    quarter = flat.size // 4
    channels = Image.frombuffer("RGBA", (quarter, 1), flat[: 4 * quarter], "raw", "RGBA", 0, 1) if quarter else None
    counts = np.bincount(flat[4 * quarter :], minlength=256)
    return (counts + np.reshape(channels.histogram(), (4, 256)).sum(0) if channels else counts)[:count]


def coloured(labels: np.ndarray) -> Image.Image:
    """Labels in their colours."""
    if labels.dtype != np.uint8:
        return Image.fromarray(palette(int(labels.max()) + 1)[labels])
    picture = Image.fromarray(labels)
    picture.putpalette(palette(256).ravel().tolist())
    return picture.convert("RGB")


def share(count: int, total: int) -> str:
    """A class that appears is never said to cover 0%."""
    return "<1%" if count * 100 < total else f"{count / total:.0%}"


def blend_heatmap(image: Image.Image, heatmap: np.ndarray, name: str) -> Image.Image:
    """One prompt's heat map over the image in grey, from blue (0) to red (1)."""
    position = np.linspace(0, len(_HEAT) - 1, 256)
    ramp = np.stack([np.interp(position, range(len(_HEAT)), channel) for channel in _HEAT.T], axis=-1).astype(np.uint8)
    heat = Image.fromarray(ramp[(np.clip(heatmap, 0, 1) * 255).astype(np.uint8)])
    return _with_legend(_over_grey(image, heat), [((255, 64, 0), readable(name, "heat map"), "")])


def _over_grey(image: Image.Image, colours: Image.Image) -> Image.Image:
    """Over grey, colours are those of the legend, whatever colour the thing below has."""
    return Image.blend(image.convert("L").convert("RGB"), colours, _BLEND)


def _with_legend(picture: Image.Image, entries: list[tuple[Colour, str, str]]) -> Image.Image:
    """The picture with a white strip below it: colour, name and share of each entry, wrapped to the width."""
    text_size = min(32, max(11, round(min(picture.size) / 24)))
    if len(entries) > 8:
        text_size = max(11, text_size * 2 // 3)
    line, gap, canvas_width = round(text_size * 1.6), text_size // 2, max(picture.width, _LEGEND_WIDTH)
    places, x, y = [], gap, gap
    for colour, name, note in entries:
        text = _written(name, note, text_size, canvas_width - text_size - 3 * gap)
        width = text_size + gap + text.width + 2 * gap
        if x > gap and x + width > canvas_width + gap:
            x, y = gap, y + line
        places.append((x, picture.height + y, colour, text))
        x += width
    canvas = Image.new("RGB", (canvas_width, picture.height + y + line), "white")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    for left, top, colour, text in places:
        draw.rectangle((left, top, left + text_size, top + text_size), fill=colour, outline=(64, 64, 64))
        canvas.paste("black", (left + text_size + gap, top + text_size // 2 - text.height // 2), text)
    return canvas


@lru_cache(maxsize=4096)  # few kilobytes each; images of a run show the same classes
def _written(name: str, note: str, text_size: int, width: int) -> Image.Image:
    """Name and note in a width of pixels, as a mask whose middle is the text's."""
    font = font_for(name, text_size)
    text = _shortened(name, note, font, width)
    mask = Image.new("L", (max(1, round(font.getlength(text))), 2 * text_size))
    ImageDraw.Draw(mask).text((0, text_size), text, fill=255, font=font, anchor="lm")
    return mask


def _shortened(name: str, note: str, font: Font, width: int) -> str:
    """Name and note in a width of pixels, the name cut where it has to be."""

    def cut(kept: int) -> str:
        return f"{name[:kept].rstrip()}... {note}".rstrip()

    text = f"{name} {note}".rstrip()
    if font.getlength(text) <= width or len(name) < 2:
        return text
    lengths = range(1, len(name))
    return cut(max(1, bisect_right(lengths, float(width), key=lambda kept: float(font.getlength(cut(kept))))))


@lru_cache(maxsize=4096)  # of the classes of a run, for each of its images
def readable(name: str, instead: str) -> str:
    """The name in one line, as far as the fonts here go: without accents, or else `instead` (the legend file has it).

    A box for each letter would tell nothing.
    """
    line = " ".join(name.split())
    plain = unicodedata.normalize("NFKD", line).encode("ascii", "ignore").decode()
    if any(covers(font, line) for font in _fonts(16)):
        return line
    plain = " ".join(plain.split())
    return plain if any(letter.isalnum() for letter in plain) else instead


@lru_cache(maxsize=4096)
def font_for(text: str, size: int) -> Font:
    """The first font that has all characters of the text, or Pillow's own."""
    return next((font for font in _fonts(size) if covers(font, text)), _fonts(size)[0])


def covers(font: Font, text: str) -> bool:
    """Whether no character is drawn as the box of a missing one."""

    def drawn(letter: str) -> tuple[tuple[int, int], bytes]:
        mask = font.getmask(letter)
        return mask.size, bytes(mask)

    box = drawn("\uffff")
    return not any(drawn(letter) == box for letter in set(text) - {" "})


@cache
def _fonts(size: int) -> tuple[Font, ...]:
    fonts = [ImageFont.load_default(size)]
    for name in _FONTS:
        try:
            fonts.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(fonts)


def label_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the labels from 0 on: 0 is `background`, or another word where a class is called that."""
    taken = {name.casefold() for name in classes}
    words = chain(["background", "unlabelled"], (f"unlabelled {number}" for number in count(2)))
    return (next(word for word in words if word not in taken), *classes)


def legend(classes: Sequence[str]) -> dict[str, dict[str, str]]:
    """Name and colour of each label of these classes."""
    names = label_names(classes)
    return {str(i): {"name": n, "color": "#{:02x}{:02x}{:02x}".format(*class_colour(i))} for i, n in enumerate(names)}
