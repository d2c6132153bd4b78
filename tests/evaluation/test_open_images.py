"""OpenImages V7's points: the files, the heat maps at the points, and what is said of wrong files."""

import json
import os
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import gem_fast
from gem_fast.cli import app
from gem_fast.demo import SAMPLES
from gem_fast.evaluation import PROTOCOLS
from gem_fast.evaluation.loop import Held
from gem_fast.evaluation.open_images import ANNOTATIONS, DESCRIPTIONS, open_points
from gem_fast.evaluation.point_run import Points, _fingerprint, evaluate_points
from gem_fast.evaluation.points import hits, readings

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


@pytest.fixture
def several(root):
    """Three photographs, of which the second is damaged."""
    scene = Image.open(SAMPLES / "cat_umbrella.png").convert("RGB")
    scene.resize((150, 100)).save(root / "validation/00cc.jpg")
    (root / "validation/00bb.jpg").write_bytes(b"no photograph")
    rows = "00bb,0.5,0.5,/m/1,yes,,1,0,0,\n00cc,0.3,0.5,/m/2,yes,,1,0,0,\n00cc,0.8,0.1,/m/2,no,,0,1,0,\n"
    with open(root / ANNOTATIONS, "a") as file:
        file.write(rows)
    return open_points(root)


def by_hand(model, points, **settings):
    """Hits of each photograph that can be read, by `segment`'s heat maps."""
    for each in points.images:
        if each.path.name != "00bb.jpg":
            result, found = model.segment(each.path, list(each.points), **settings), []
            for word, (places, yes) in each.points.items():
                at = np.minimum((places[:, ::-1] * result.size).astype(int), np.array(result.size) - 1)
                found.append(hits(word, result.heatmap(word)[at[:, 0], at[:, 1]] >= 0.5, yes))
            yield found


@pytest.mark.parametrize("settings", [{"size": 96}, {"size": 96, "window": 64, "stride": 32}], ids=str)
def test_the_four_readings_are_those_by_hand_and_a_damaged_photograph_is_told(several, settings):
    model = gem_fast.load("gem-tiny")
    done = evaluate_points(model, several, PROTOCOLS["gem"].of("openimages-points", **settings))
    assert done.row["readings"] == pytest.approx(readings(by_hand(model, several, **settings)))
    assert (done.row["images"], done.row["method"]) == (2, "gem")
    assert len(done.failures) == 1
    assert "00bb.jpg" in done.failures[0]
    assert set(done.row["per_class"]) == {"Dog", "bicycle", "Cat"}


def test_at_the_threshold_itself_a_point_is_found(root):
    points = open_points(root)
    words = {word: row for row, word in enumerate(points.images[0].points)}
    work = Points(None, None, None, points, words, np.eye(len(words), dtype=np.float32))
    for value, missed in ((0.5, False), (np.nextafter(np.float32(0.5), np.float32(0)), True)):
        even = SimpleNamespace(heatmaps=lambda cosines, size, value=value: np.full((1, *size), value, np.float32))
        held = Held(0, (6, 8), (16, 16), None)
        counts = work.counts(held, np.zeros((len(words), 2, 2), np.float32), even, {})
        assert counts == ([[0, 0, 1, 1], [0, 0, 1, 0]] if missed else [[1, 1, 0, 0], [1, 0, 0, 0]])


def test_what_is_said_of_a_point_counts_where_an_evaluation_goes_on(root):
    image = open_points(root).images[0]
    word, (places, yes) = next(iter(image.points.items()))
    changed = [(places, ~yes), (places[::-1], yes), (places, yes.copy())]
    others = [replace(image, points={**image.points, word: each}) for each in changed]
    assert [_fingerprint(each) == _fingerprint(image) for each in others] == [False, False, True]


def test_an_evaluation_of_points_goes_on(several, tmp_path, monkeypatch):
    model, journal = gem_fast.load("gem-tiny"), tmp_path / "journal"
    steps = PROTOCOLS["gem"].of("openimages-points", size=64)
    whole = evaluate_points(model, several, steps, journal=journal).row
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0] + lines[1][:20])
    scored, score = [], type(model).score_on_host
    monkeypatch.setattr(
        type(model),
        "score_on_host",
        lambda self, pixels, *rest, **named: scored.append(len(pixels)) or score(self, pixels, *rest, **named),
    )
    again = evaluate_points(model, several, steps, journal=journal)
    assert again.row["readings"] == whole["readings"]
    assert again.row["per_class"] == whole["per_class"]
    assert sum(scored) == 1
    evaluate_points(model, several, PROTOCOLS["gem"].of("openimages-points", size=72), journal=journal)
    assert sum(scored) == 3


def test_what_points_can_not_take_is_refused(root, tmp_path):
    model = gem_fast.load("gem-tiny", feature_surgery=True)
    with pytest.raises(ValueError, match="without feature_surgery"):
        evaluate_points(model, open_points(root), PROTOCOLS["gem"])
    words = tmp_path / "words.txt"
    words.write_text("dog\n")
    for option, value, said in (("sweep", "iterations=0", "of label maps"), ("prompts-file", words, "has words of")):
        given = ["--root", str(root), f"--{option}", str(value)]
        result = CliRunner().invoke(app, ["evaluate", "--data", "openimages-points", *given])
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())


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
        ("00ab,0.2,0.5,/m/1,yes,,,,," + "x," * 200_000, "can't be read: a line has more than"),
    ],
)
def test_wrong_lines_are_named(root, row, said):
    (root / ANNOTATIONS).write_text(HEADER + row)
    with pytest.raises(ValueError, match=said):
        open_points(root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
@pytest.mark.parametrize("name", [ANNOTATIONS, DESCRIPTIONS])
def test_what_is_no_file_is_not_waited_for(root, name):
    (root / name).unlink()
    os.mkfifo(root / name)
    with pytest.raises(ValueError, match=f"expected the file .*{name}"):
        open_points(root)


def test_missing_files_and_columns_are_named(root):
    (root / ANNOTATIONS).write_text("ImageId,X,Y\n")
    with pytest.raises(ValueError, match="no column Label, EstimatedYesNo"):
        open_points(root)
    (root / ANNOTATIONS).unlink()
    with pytest.raises(ValueError, match=re.escape(ANNOTATIONS)):
        open_points(root)
