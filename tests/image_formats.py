"""Formats that are read, and an image's values, for the tests of reading."""

import numpy as np

LOSSLESS = ("png", "tiff", "bmp")
FORMATS = (*LOSSLESS, "jpg", "webp", "gif")


def pixels(image):
    return np.asarray(image).astype(int)
