"""OpenImages V7's points: the files, the heat maps at the points, and what is said of wrong files."""

import json
import re

import pytest
from PIL import Image
from typer.testing import CliRunner

import gem_fast
from gem_fast.cli import app
from gem_fast.demo import SAMPLES
from gem_fast.evaluation.open_images import ANNOTATIONS, DESCRIPTIONS, open_points

HEADER = "ImageId,X,Y,Label,EstimatedYesNo,Source,YesVotes,NoVotes,UnsureVotes,TextLabel\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "validation").mkdir()
    Image.open(SAMPLES / "dog_bicycle.png").convert("RGB").save(tmp_path / "validation/00ab.jpg")
    (tmp_path / DESCRIPTIONS).write_text("LabelName,DisplayName\n/m/1,Dog\n/m/2,Cat\n")
    rows = (
        "00ab,0.2,0.5,/m/1,yes,,1,0,0,\n",
        "00ab,0.9,0.1,/m/1,no,,0,1,0,\n",
        "00ab,0.5,1,/m/3,yes,,1,0,0,bicycle\n",
        "00ab,0.5,0.5,/m/1,unsure,,0,0,1,\n",
        "00ab,0.1,0.1,/m/2,no,,0,1,0,\n",  # a class that is not in the image
        "00cd,0.1,0.1,/m/2,no,,0,1,0,\n",  # an image with no class that is
    )
    (tmp_path / ANNOTATIONS).write_text(HEADER + "".join(rows))
    return tmp_path


def test_classes_with_a_yes_are_read_with_their_names(root):
    (only,) = open_points(root).images
    assert set(only.points) == {"Dog", "bicycle"}
    places, yes = only.points["Dog"]
    assert places.tolist() == [[0.2, 0.5], [0.9, 0.1]]
    assert yes.tolist() == [True, False]


def test_the_commands_figure_is_that_by_hand(root, tmp_path):
    options = ["--root", root, "--size", 96, "--json", tmp_path / "rows.json", "--progress", "none"]
    result = CliRunner().invoke(app, ["evaluate", "--data", "openimages-points", *map(str, options)])
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    found = gem_fast.load("gem-tiny").segment(root / "validation/00ab.jpg", ["Dog", "bicycle"], size=96)
    height, width = found.size
    dog = [found.heatmap("Dog")[int(y * height), int(x * width)] >= 0.5 for x, y in ((0.2, 0.5), (0.9, 0.1))]
    bicycle = found.heatmap("bicycle")[height - 1, width // 2] >= 0.5
    hit, wrong = int(dog[0]) + int(bicycle), int(dog[1])
    assert row["miou"] == pytest.approx(hit / (2 + wrong))
    assert set(row["readings"]) == {"image", "image-class", "both-sides", "class"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("00ab,2,0.5,/m/1,yes,,,,,\n", "line 2: .*0..1"),
        ("../x,0.2,0.5,/m/1,yes,,,,,\n", "line 2: .*letters"),
        ("00ab,x,0.5,/m/1,yes,,,,,\n", "line 2: no point"),
        ("00ab\n", "line 2: no point"),
        ("00ab,0.2,0.5,/m/9,yes,,,,,\n", "no name for /m/9"),
        ("00cd,0.2,0.5,/m/1,yes,,,,,\n", "expected the photograph .*00cd.jpg"),
        ("00ab,0.2,0.5,/m/1,yes,,,,," + "x" * 200_000, "can't be read"),
    ],
)
def test_wrong_lines_are_named(root, row, said):
    (root / ANNOTATIONS).write_text(HEADER + row)
    with pytest.raises(ValueError, match=said):
        open_points(root)


def test_missing_files_and_columns_are_named(root):
    (root / ANNOTATIONS).write_text("ImageId,X,Y\n")
    with pytest.raises(ValueError, match="no column Label, EstimatedYesNo"):
        open_points(root)
    (root / ANNOTATIONS).unlink()
    with pytest.raises(ValueError, match=re.escape(ANNOTATIONS)):
        open_points(root)
