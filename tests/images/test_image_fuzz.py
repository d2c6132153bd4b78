"""Mutated files of every format: nothing but an image or an `ImageError` that names the file once."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gem_fast.images import ImageError, read_image
from tests.images.image_formats import FORMATS, write_tiff

PLACES = st.floats(0, 1, exclude_max=True)
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
        st.tuples(st.just("set"), PLACES, st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF])),
        st.tuples(st.just("number"), PLACES, st.sampled_from([0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1])),
        st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=12)),
        st.tuples(st.just("drop"), PLACES, st.integers(1, 16)),
        st.tuples(st.just("splice"), PLACES, PLACES),
        st.tuples(st.just("cut"), PLACES, st.none()),
    ),
    min_size=1,
    max_size=6,
)


def mutated(content, mutations, headwards):
    """Mutations at places of the whole file, or of the first 300 bytes, where headers and tables are."""
    content = bytearray(content)
    for kind, where, what in mutations:
        place = int(where * (min(300, len(content)) if headwards and kind != "cut" else len(content)))
        if kind == "flip":
            content[place : place + 1] = bytes(byte ^ 1 << what for byte in content[place : place + 1])
        elif kind == "set":
            content[place : place + 1] = bytes([what])
        elif kind == "number":
            content[place : place + 4] = what.to_bytes(4, "little" if place % 2 else "big")
        elif kind == "insert":
            content[place:place] = what
        elif kind == "drop":
            del content[place : place + what]
        elif kind == "splice":
            start = int(what * len(content))
            content[place:place] = content[start : start + 40]
        else:
            del content[place:]
    return bytes(content)


def outcome(path):
    """The mode that is read, or what the error says."""
    try:
        return read_image(path).mode
    except ImageError as error:
        return str(error)


@pytest.fixture(scope="module", params=[*FORMATS, "deep.tiff", "palette.png", "progressive.jpg"])
def whole(request, tmp_path_factory):
    """A small file of each format with metadata, and where its mutants are written."""
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / f"whole.{request.param}"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((24, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    if request.param == "deep.tiff":
        write_tiff(path, np.asarray(picture).astype(np.uint16) * 257, photometric=2, rows=5)
    elif request.param == "palette.png":
        picture.quantize(7).save(path, transparency=0)
    else:
        extra = {} if request.param in ("bmp", "gif", "jp2") else {"exif": exif.tobytes()}
        picture.save(path, **extra, **({"progressive": True} if "progressive" in request.param else {}))
    return path.read_bytes(), folder / "hurt.png"


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(mutations=MUTATIONS, headwards=st.booleans())
def test_a_mutated_file_is_an_image_or_an_image_error(whole, mutations, headwards):
    content, path = whole
    path.write_bytes(mutated(content, mutations, headwards))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own about odd metadata
        said = outcome(path)
    assert said == "RGB" or (said.startswith(f"{path}: ") and said.count(str(path)) == 1)


def test_the_unmutated_files_are_images(whole):
    content, path = whole
    path.write_bytes(content)
    assert sorted(read_image(path).size) == [16, 24]
