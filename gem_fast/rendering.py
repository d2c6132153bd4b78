"""Pictures of results: class colours, blended overlays, and the legend below them."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
_HEAT = np.array([[0, 0, 96], [0, 96, 255], [0, 224, 192], [255, 224, 0], [255, 64, 0], [128, 0, 0]], np.float32)
_LABEL_BLEND = 0.55
_LEGEND_ENTRIES = 24  # more would not be read


def class_colour(label: int) -> Colour:
    """Colour of a label: black for background, then hues a golden angle apart, in three rounds of brightness."""
    if label == 0:
        return (0, 0, 0)
    hue = (label - 1) * 0.61803398875 % 1.0
    saturation, value = ((0.85, 1.0), (0.6, 0.85), (1.0, 0.65))[(label - 1) // 12 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return (round(red * 255), round(green * 255), round(blue * 255))


def palette(count: int) -> np.ndarray:
    """Colours of labels 0 to count - 1: [count, 3] uint8."""
    return np.array([class_colour(label) for label in range(count)], np.uint8)


def blend_labels(image: Image.Image, labels: np.ndarray, names: tuple[str, ...]) -> Image.Image:
    """Class colours over the image, background untouched, with a legend of the classes that appear."""
    counts = np.bincount(labels.ravel(), minlength=len(names) + 1)
    pixels = np.asarray(image, np.float32)
    colours = palette(len(names) + 1).astype(np.float32)[labels]
    mixed = np.where(labels[..., None] > 0, pixels + (colours - pixels) * _LABEL_BLEND, pixels)
    shown = [label for label in np.argsort(-counts) if label > 0 and counts[label]]
    entries = [(class_colour(int(i)), f"{names[i - 1]} {counts[i] / labels.size:.0%}") for i in shown]
    if len(entries) > _LEGEND_ENTRIES:
        entries = [*entries[:_LEGEND_ENTRIES], ((128, 128, 128), f"and {len(entries) - _LEGEND_ENTRIES} more")]
    return _with_legend(Image.fromarray(mixed.astype(np.uint8)), entries or [((0, 0, 0), "background 100%")])


def blend_heatmap(image: Image.Image, heatmap: np.ndarray, name: str) -> Image.Image:
    """One prompt's heat map over the image, from blue (0) to red (1)."""
    position = np.clip(heatmap, 0, 1) * (len(_HEAT) - 1)
    steps = np.arange(len(_HEAT))
    heat = np.stack([np.interp(position, steps, _HEAT[:, channel]) for channel in range(3)], axis=-1)
    mixed = 0.45 * np.asarray(image, np.float32) + 0.55 * heat
    return _with_legend(Image.fromarray(mixed.astype(np.uint8)), [((255, 64, 0), name)])


def _with_legend(picture: Image.Image, entries: list[tuple[Colour, str]]) -> Image.Image:
    """The picture with a white strip below it: a coloured square and a name for each entry, wrapped to the width."""
    text_size = max(11, round(min(picture.size) / 24))
    font = ImageFont.load_default(text_size)
    line, gap = round(text_size * 1.6), text_size // 2
    places, x, y = [], gap, gap
    for _, text in entries:
        width = text_size + gap + round(font.getlength(text)) + 2 * gap
        if x > gap and x + width > picture.width:
            x, y = gap, y + line
        places.append((x, y))
        x += width
    canvas = Image.new("RGB", (picture.width, picture.height + y + line), "white")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    for (colour, text), (left, top) in zip(entries, places, strict=True):
        top += picture.height
        draw.rectangle((left, top, left + text_size, top + text_size), fill=colour, outline=(64, 64, 64))
        draw.text((left + text_size + gap, top + text_size // 2), text, fill="black", font=font, anchor="lm")
    return canvas
