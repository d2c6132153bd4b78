"""`gem-fast evaluate`: figures equal to those by hand, protocols, resuming, failures."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import gem_fast
from gem_fast.batch.progress import Progress
from gem_fast.batch.sources import Source
from gem_fast.batch.workers import Failure
from gem_fast.cli import app
from gem_fast.evaluation import PROTOCOLS, Dataset, evaluate, loop, open_data
from gem_fast.evaluation import plan as plan_module
from gem_fast.evaluation import run as run_module
from gem_fast.evaluation.decoding import LabelRule
from gem_fast.evaluation.journal import Journal, version_of
from gem_fast.evaluation.labelled import class_list
from gem_fast.evaluation.metrics import IGNORED
from gem_fast.evaluation.paper import paper_figure
from gem_fast.evaluation.plan import Case, Plan, split
from gem_fast.evaluation.protocols import words_of
from gem_fast.evaluation.run import evaluate_variants
from gem_fast.evaluation.scenes import load_scenes
from gem_fast.images import MAX_PIXELS, MAX_WINDOWED_PIXELS, ImageError
from gem_fast.runtime.decoders import NumpyDecoder
from gem_fast.windows import Axis, Layout, WindowDecoder, Windows

SHARED = next((each / "shared/data" for each in Path(__file__).parents if (each / "shared/data").is_dir()), None)
SAMPLES = Path(gem_fast.__file__).parent / "samples"


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--progress", "none"])


@pytest.fixture
def own(tmp_path):
    """Three small photographs with made labels of background, cat and rocket."""
    folder = tmp_path / "own"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for seed, name in enumerate(("chelsea", "coffee", "rocket")):
        picture = Image.open(SAMPLES / f"{name}.jpg").resize((96, 72))
        picture.save(folder / f"images/{name}.png")
        labels = np.random.default_rng(seed).integers(0, 3, (6, 8), np.uint8).repeat(12, 0).repeat(12, 1)
        labels[:4] = 255
        Image.fromarray(labels).save(folder / f"labels/{name}.png")
    (folder / "classes.txt").write_text("background, wall\ncat, kitten\nrocket, missile\n")
    return folder


def by_hand(folder, prompts, **settings):
    """mIoU of a folder's photographs, one after another, in plain numpy."""
    model, both, either = gem_fast.load("gem-tiny"), np.zeros(3), np.zeros(3)
    for path in sorted((folder / "images").iterdir()):
        labels = model.segment(path, prompts, **settings).labels.astype(int)
        truth = np.asarray(Image.open(folder / f"labels/{path.stem}.png"))
        valid = truth != 255
        for c in range(3):
            both[c] += ((labels == c) & (truth == c) & valid).sum()
            either[c] += (((labels == c) | (truth == c)) & valid).sum()
    return (both / either).mean()


def test_the_commands_miou_is_that_by_hand(own, tmp_path):
    result = run("--data", own, "--size", 96, "--json", tmp_path / "rows.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    wanted = by_hand(own, ["cat", "rocket"], size=96, threshold=0.85, logit_scale=100)
    assert row["miou"] == pytest.approx(wanted, abs=1e-12)
    assert (row["data"], row["model"], row["method"], row["protocol"]) == ("own", "gem-tiny", "gem", "gem")
    assert row["images"] == 3
    assert list(row["per_class"]) == ["background", "cat", "rocket"]
    assert row["miou"] == pytest.approx(np.mean(list(row["per_class"].values())))
    assert {"settings", "pixel_accuracy", "images_per_second", "versions"} <= set(row)
    assert f"{100 * wanted:.2f}" in result.output


@pytest.mark.skipif(SHARED is None, reason="the real samples are not part of the repository")
@pytest.mark.parametrize("name", ["ade20k", "voc21"])
def test_the_shared_samples(name, tmp_path):
    """Real photographs with real annotations, in the layout of their sets."""
    if name == "ade20k":
        for ours, theirs in (("images", "images"), ("annotations", "annotations")):
            shutil.copytree(SHARED / "ade20k" / ours, tmp_path / f"ADEChallengeData2016/{theirs}/validation")
    else:
        folder = tmp_path / "VOCdevkit/VOC2012"
        for part in ("JPEGImages", "SegmentationClass"):
            shutil.copytree(SHARED / "voc" / part, folder / part)
        (folder / "ImageSets/Segmentation").mkdir(parents=True)
        names = sorted(path.stem for path in (folder / "JPEGImages").iterdir())
        (folder / "ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    dataset, model = open_data(name, tmp_path), gem_fast.load("gem-tiny")
    result = run("--data", name, "--root", tmp_path, "--size", 64, "--json", tmp_path / "rows.json")
    assert result.exit_code == 0, result.output
    count, shift = len(dataset.classes), 0 if name == "voc21" else 1
    words = [each.name for each in dataset.classes[0 if shift else 1 :]]
    both, either = np.zeros(count), np.zeros(count)
    for image, truth in zip(dataset.images, dataset.truths, strict=True):
        threshold = 0.0 if shift else 0.85
        labels = model.segment(image, words, size=64, threshold=threshold, logit_scale=100).labels.astype(int) - shift
        right = np.asarray(Image.open(truth)).astype(int) - shift
        valid = (right >= 0) & (right < count)
        for c in range(count):
            both[c] += ((labels == c) & (right == c) & valid).sum()
            either[c] += (((labels == c) | (right == c)) & valid).sum()
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["miou"] == pytest.approx((both[either > 0] / either[either > 0]).mean(), abs=1e-12)


def test_an_evaluation_goes_on_and_ends_as_one_that_was_not_interrupted(own, tmp_path, monkeypatch):
    model, dataset = gem_fast.load("gem-tiny"), open_data(str(own), None)
    steps = PROTOCOLS["gem"].of("own", size=64)
    whole = evaluate(model, dataset, steps).row["miou"]
    journal = tmp_path / "journal"
    evaluate(model, dataset, steps, journal=journal)
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:2]) + lines[2][:20])
    scored = []
    score = type(model).score_on_host
    monkeypatch.setattr(
        type(model),
        "score_on_host",
        lambda self, pixels, *rest, **named: scored.append(len(pixels)) or score(self, pixels, *rest, **named),
    )
    assert evaluate(model, dataset, steps, journal=journal).row["miou"] == whole
    assert sum(scored) == 1
    evaluate(model, dataset, PROTOCOLS["gem"].of("own", size=72), journal=journal)
    assert sum(scored) == 4


def counted(monkeypatch):
    """A list that grows by what the engine scores."""
    scored, score = [], gem_fast.GemModel.score_on_host
    monkeypatch.setattr(
        gem_fast.GemModel,
        "score_on_host",
        lambda self, pixels, *rest, **named: scored.extend([1] * len(pixels)) or score(self, pixels, *rest, **named),
    )
    return scored


@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_file_that_was_replaced_is_measured_anew(own, tmp_path, monkeypatch, part):
    model, steps, journal = gem_fast.load("gem-tiny"), PROTOCOLS["gem"].of(None, size=64), tmp_path / "journal"
    evaluate(model, open_data(str(own), None), steps, journal=journal)
    place = own / part / "coffee.png"
    Image.fromarray(np.asarray(Image.open(place))[::-1].copy()).save(place)
    os.utime(place, ns=(1, 1))
    scored = counted(monkeypatch)
    resumed = evaluate(model, open_data(str(own), None), steps, journal=journal)
    assert len(scored) == 1
    assert resumed.row["per_class"] == evaluate(model, open_data(str(own), None), steps).row["per_class"]


def test_an_image_that_was_mended_is_measured_alone(own, tmp_path, monkeypatch):
    place = own / "images/coffee.png"
    whole = place.read_bytes()
    place.write_bytes(whole[:200])
    options = ("--data", own, "--size", 64, "--workers", 1, "--json", tmp_path / "rows.json")
    result = run(*options)
    assert result.exit_code == 1
    assert "--resume goes on with" in result.output
    place.write_bytes(whole)
    scored = counted(monkeypatch)
    assert run(*options, "--resume").exit_code == 0
    assert len(scored) == 1
    assert json.loads((tmp_path / "rows.json").read_text())[0]["images"] == 3
    assert not (tmp_path / "rows.json.partial").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_names_are_no_markup_and_need_not_be_text(own, tmp_path):
    folder = own.rename(own.with_name("[red]o\udcff"))
    result = run("--data", folder, "--size", 64, "--json", tmp_path / "rows.json")
    assert result.exit_code == 0, result.output
    assert "[red]o\\udcff" in result.output
    assert json.loads((tmp_path / "rows.json").read_text())[0]["data"] == "[red]o\udcff"


def test_labels_of_another_size_never_reach_the_engine(own, monkeypatch):
    Image.new("L", (5, 5)).save(own / "labels/coffee.png")
    scored = counted(monkeypatch)
    assert run("--data", own, "--size", 64).exit_code == 1
    assert len(scored) == 2


def test_the_command_goes_on_where_it_was_interrupted(own, tmp_path, monkeypatch):
    options = ("--data", own, "--size", 64, "--workers", 1)
    assert run(*options, "--json", tmp_path / "whole.json").exit_code == 0
    asked, keep = ("--data", own, "--size", 64, "--workers", 1, "--json", tmp_path / "new" / "rows.json"), Journal.keep

    def interrupted(self, index, counts):
        keep(self, index, counts)
        if index == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(Journal, "keep", interrupted)
        result = run(*asked)
    assert result.exit_code == 130
    assert "--resume goes on with" in result.output
    kept = (tmp_path / "new" / "rows.json.partial").read_text().splitlines()
    seen = []
    monkeypatch.setattr(Journal, "keep", lambda self, index, counts: seen.append(index))
    assert run(*asked, "--resume").exit_code == 0
    assert len(kept) + len(seen) == 3
    (row,), (whole,) = (json.loads((tmp_path / each).read_text()) for each in ("new/rows.json", "whole.json"))
    assert row["per_class"] == whole["per_class"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["rows.json"]


def test_the_photographs_own_size(own, tmp_path):
    result = run("--data", own, "--resize", "exact", "--json", tmp_path / "rows.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    wanted = by_hand(own, ["cat", "rocket"], resize="exact", threshold=0.85, logit_scale=100)
    assert row["miou"] == pytest.approx(wanted, abs=1e-12)
    assert row["settings"]["resize"] == "exact"


def test_scenes_alone_have_all_methods_and_what_is_unknown_is_told_before_anything_runs(own, tmp_path):
    scenes, other = ((open_data(name, None), PROTOCOLS["gem"]) for name in ("scenes", str(own)))
    assert Plan((scenes,)).chosen_methods() == tuple(gem_fast.methods())
    assert Plan((scenes,), sweep=("iterations=0",)).chosen_methods() == ("gem",)
    assert Plan((scenes, other)).chosen_methods() == ("gem",)
    assert Plan((other,), methods=("all",)).chosen_methods() == tuple(gem_fast.methods())
    result = run("--data", own, "--method", "gem", "--method", "sclop")
    assert result.exit_code == 2
    assert "no method is called 'sclop'; the methods are clip, maskclip" in " ".join(result.output.split())
    assert "3 images" not in result.output


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("gem-tiny", ("gem-tiny", None)),
        ("ViT-B-16:openai", ("ViT-B-16", "openai")),
        ("of:two:colons", ("of:two", "colons")),
        ("hf-hub:org/name", ("hf-hub:org/name", None)),
        ("local-dir:folder", ("local-dir:folder", None)),
        ("there:is", ("there:is", None)),
    ],
)
def test_a_tag_is_behind_the_last_colon_of_what_is_no_folder(tmp_path, monkeypatch, name, wanted):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there:is").mkdir()
    assert split(name) == wanted


@pytest.mark.parametrize(("sweep", "figure"), [((), 46.2), (("iterations=0,1",), None)])
def test_the_papers_figure_is_not_of_a_sweep(monkeypatch, sweep, figure):
    monkeypatch.setattr(plan_module, "paper_figure", lambda *_: 46.2)
    (case,) = Plan(((open_data("scenes", None), PROTOCOLS["gem"]),), methods=("gem",), sweep=sweep).cases()
    assert (case.paper, len(case.variants)) == (figure, 2 if sweep else 1)


@pytest.fixture
def single(own, tmp_path):
    """The same photographs with one class."""
    folder = shutil.copytree(own, tmp_path / "single")
    (folder / "classes.txt").write_text("cat\n")
    return folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "gem-tiny", "--model", "nonsense"], "no model is called 'nonsense'"),
        (["--model", "gem-tiny", "--model", "ViT-B-16:nonsense"], "no weights 'nonsense'; its tags are"),
        (["--model", "gem-tiny", "--model", "ViT-B-16"], "needs either pretrained"),
        (["--method", "gem", "--method", "clip", "--sweep", "iterations=0,1"], "clip is none"),
        (["--data", "single"], "single has a single class"),
        (["--sweep", "iterations=0", "--plot", "single"], "single is a folder: name a file in it"),
        (["--sweep", "iterations=0", "--plot", "single/classes.txt/a.png"], "classes.txt is no folder"),
        (["--json", "single"], "single is a folder: name a file in it"),
        (["--json", "single/classes.txt/a.json"], "classes.txt is no folder"),
    ],
    ids=str,
)
def test_what_a_later_case_or_file_could_not_have_is_told_before_anything_runs(own, single, monkeypatch, options, said):
    monkeypatch.chdir(single.parent)
    monkeypatch.setattr(Case, "evaluate", lambda self, **running: pytest.fail("something ran"))
    result = run("--data", own, *options)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_drawing_is_tried_before_anything_runs(own, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(Case, "evaluate", lambda self, **running: pytest.fail("something ran"))
    result = run("--data", own, "--sweep", "iterations=0", "--plot", tmp_path / "a.png")
    assert result.exit_code == 2
    assert "gem_fast[evaluation]" in result.output


@pytest.mark.parametrize(("error", "status"), [(ValueError("windows don't fit"), 2), (KeyboardInterrupt(), 130)])
def test_what_is_finished_is_told_whatever_ends_the_rest(own, monkeypatch, error, status):
    evaluate_case = Case.evaluate

    def once(self, **running):
        if self.method != "gem":
            raise error
        return evaluate_case(self, **running)

    monkeypatch.setattr(Case, "evaluate", once)
    result = run("--data", own, "--size", 64, "--method", "gem", "--method", "clip")
    assert result.exit_code == status
    assert "mIoU" in result.output
    assert "│ own" in result.output


def test_images_that_can_not_be_used_are_told(own):
    Image.new("L", (5, 5)).save(own / "labels/coffee.png")
    result = run("--data", own, "--size", 64)
    assert result.exit_code == 1
    assert "coffee.png" in result.output
    assert "one size" in result.output


def test_the_words_of_others(own, tmp_path):
    (tmp_path / "words.txt").write_text("puss\nspacecraft, rocket\n")
    result = run(
        "--data", own, "--size", 64, "--prompts-file", tmp_path / "words.txt", "--json", tmp_path / "rows.json"
    )
    assert list(json.loads((tmp_path / "rows.json").read_text())[0]["per_class"]) == [
        "background",
        "puss",
        "spacecraft",
    ]
    assert result.exit_code == 0


class TestProtocols:
    def test_explain_tells_steps_and_words(self):
        for name in PROTOCOLS:
            told = CliRunner().invoke(app, ["evaluate", "--protocol", name, "--explain"]).output
            assert "voc21" in told
            assert "aeroplane" in told
        told = CliRunner().invoke(app, ["evaluate", "--protocol", "sclip", "--explain"]).output
        assert "logit_scale 65.0, threshold 0.1, area_threshold 0.1" in told
        assert "46.2" in CliRunner().invoke(app, ["evaluate", "--explain"]).output

    def test_sclip_has_windows_templates_and_all_words(self, own, tmp_path):
        settings = ("--size", 64, "--window", 64, "--stride", 32)
        result = run("--data", own, "--protocol", "sclip", *settings, "--json", tmp_path / "rows.json")
        assert result.exit_code == 0, result.output
        (row,) = json.loads((tmp_path / "rows.json").read_text())
        assert row["settings"]["templates"] == "imagenet"
        assert (row["settings"]["window"], row["settings"]["stride"]) == (64, 32)
        words = words_of(open_data(str(own), None), PROTOCOLS["sclip"].of("own"))
        assert words == [(0, "background"), (0, "wall"), (1, "cat"), (1, "kitten"), (2, "rocket"), (2, "missile")]

    def test_small_classes_lose_their_pixels_to_the_next_of_all_probabilities(self):
        generator = np.random.default_rng(0)
        layout, size = Windows(32, 16, 8).layout((48, 64)), (48, 64)
        room = layout.empty(4)
        room[:] = generator.standard_normal(room.shape)
        room[3] -= 1.5  # rarely the best
        rule = LabelRule(np.array([0, 1, 2, 3]), True, 0.4, 2.0, area_threshold=0.1)
        found = rule.apply(room, WindowDecoder(layout), layout, size, size)
        logits = np.empty((4, *size))
        for place, tile in WindowDecoder(layout).tiles(room, size):
            logits[(slice(None), *place)] = tile
        odds = np.exp(2 * logits)
        odds /= odds.sum(0)
        counts = np.bincount(odds.argmax(0).ravel(), minlength=4)
        kept = counts > 0.1 * counts[1:].sum()
        kept[0] = True
        assert kept.tolist() == [True, True, True, False]
        odds[~kept] = 0
        wanted = np.where(odds.max(0) < 0.4, 0, odds.argmax(0))
        assert (found == wanted).mean() > 0.999

    @pytest.mark.parametrize(
        ("background", "counts", "wanted"),
        [
            (True, (0, 10, 10, 10), 0),  # ties at a third each, and no class has more than half
            (False, (0, 10, 10, 10), IGNORED),
            (False, (30, 1, 1, 1), 0),  # a class like others where nothing is background
            (False, (1, 30, 1, 1), 1),
        ],
    )
    def test_where_classes_are_too_small_pixels_are_of_what_is_left(self, background, counts, wanted):
        found = np.repeat(range(4), counts)[None]
        scores = np.full((4, 1, found.size), -1, np.float32)
        scores[found[0], 0, np.arange(found.size)] = 1
        layout = Layout(*(Axis(side, side, side, 1) for side in found.shape))
        labels = np.array([0, 1, 2, 3])[1 if background else 0 :]
        rule = LabelRule(labels, background, 0.1, 10.0, area_threshold=0.5)
        decoded = rule.apply(scores[labels], WindowDecoder(layout), layout, found.shape, found.shape)
        assert (decoded == wanted).all()

    @pytest.mark.parametrize(
        ("background", "counts", "large"),
        [
            (True, [8, 3, 1], [True, True, False]),  # of four pixels one is a quarter, and no more
            (True, [0, 3, 2], [True, True, True]),
            (False, [1, 2, 1], [False, True, False]),
        ],
    )
    def test_which_classes_are_large(self, background, counts, large):
        rule = LabelRule(np.array([0, 1, 2]), background, 0.1, 10.0, area_threshold=0.25)
        assert rule._large(np.repeat([0, 1, 2], counts)).tolist() == large

    @pytest.mark.parametrize(("threshold", "label"), [(0.5, 1), (0.501, 0)])
    def test_the_threshold_itself_is_no_background(self, threshold, label):
        rule = LabelRule(np.array([1, 2]), True, threshold, 10.0)
        found = rule.apply(np.zeros((2, 2, 2), np.float32), NumpyDecoder(), None, (16, 16), (4, 4))
        assert (found == label).all()

    def test_an_area_threshold_that_no_class_reaches_leaves_background(self, own, tmp_path):
        result = run("--data", own, "--size", 64, "--area-threshold", 1, "--json", tmp_path / "rows.json")
        assert result.exit_code == 0, result.output
        (row,) = json.loads((tmp_path / "rows.json").read_text())
        assert row["pixel_accuracy"] == pytest.approx(row["per_class"]["background"])
        assert row["per_class"]["cat"] == 0

    @pytest.mark.parametrize(
        ("chosen", "wanted"), [({"threshold": 0.0}, 0.0), ({"synonyms": False}, False), ({"logit_scale": None}, 65.0)]
    )
    def test_zero_and_no_are_chosen_and_none_is_not(self, chosen, wanted):
        (name,) = chosen
        assert getattr(PROTOCOLS["sclip"].of("voc21", **chosen), name) == wanted

    @pytest.mark.parametrize("synonyms", [True, False])
    @pytest.mark.parametrize(("chosen", "wanted"), [(True, ["background", "wall"]), (False, []), ("wall", ["wall"])])
    def test_background_words_compete_where_they_are_asked_for_with_or_without_synonyms(
        self, own, synonyms, chosen, wanted
    ):
        steps = PROTOCOLS["gem"].of(None, synonyms=synonyms, background_words=chosen)
        words = words_of(open_data(str(own), None), steps)
        assert [word for label, word in words if label == 0] == wanted
        assert (1, "kitten") in words or not synonyms

    def test_context60s_background_is_the_word_alone_by_sclip(self):
        steps = PROTOCOLS["sclip"].of("context60")
        dataset = Dataset("context60", (*class_list("background"), *class_list("context")), True, (), (), list)
        words = words_of(dataset, steps)
        assert [word for label, word in words if label == 0] == ["background"]
        assert len(words) > 70

    def test_a_stride_without_windows_is_refused(self, own):
        for options in ((), ("--window", 0), ("--protocol", "sclip", "--window", 0)):
            result = run("--data", own, "--stride", 16, *options)
            assert result.exit_code == 2
            assert "give window, too" in result.output
        assert PROTOCOLS["sclip"].of("voc20", window=0).stride is None

    def test_wrong_names_say_what_is_right(self, own):
        assert "gem, sclip, own" in run("--data", own, "--protocol", "gme").output
        assert "--data" in run().output


def test_the_papers_figures():
    assert paper_figure("voc21", "ViT-B-16", "openai", "gem") == 46.2
    assert paper_figure("ade20k", "ViT-B-16-quickgelu", "metaclip_400m", "gem") == 17.1
    assert paper_figure("context59", "ViT-B-16-quickgelu", "openai", "maskclip") == 23.8
    assert paper_figure("voc21", "ViT-B-32", "openai", "maskclip") is None
    assert paper_figure("scenes", "gem-tiny", None, "gem") is None


class TestWhatIsKept:
    def test_lines_of_another_width_are_none(self, tmp_path):
        path = tmp_path / "journal"
        Journal(path, {"q": 1}, ["a", "b"], 4).keep(0, [[1, 2, 3, 4], [5, 6, 7, 8]])
        Journal(path, {"q": 1}, ["a", "b"], 3).keep(1, [[1, 2, 3]])
        assert Journal(path, {"q": 1}, ["a", "b"], 4).finished == {0: [[1, 2, 3, 4], [5, 6, 7, 8]]}

    def test_a_file_of_another_time_is_another(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"1")
        found = []
        for time in (10**18, 10**18 + 1000, 10**18):
            os.utime(tmp_path / "a.png", ns=(time, time))
            found.append(version_of(tmp_path / "a.png"))
        assert found[0] == found[2] != found[1]
        assert version_of(tmp_path / "b.png") is None

    def test_counts_are_of_one_question(self, small_model, monkeypatch):
        """Of these words, variants and settings, in this order."""
        asked, data, steps = [], open_data("scenes", None), PROTOCOLS["gem"].of("scenes", size=64)
        monkeypatch.setattr(run_module, "measured", lambda *_: ({}, []))
        monkeypatch.setattr(run_module, "Journal", lambda _, question, *rest: asked.append(json.dumps(question)))
        names = {each.name: each.synonyms for each in data.classes}
        first = data.classes[1].name
        for other in (data, data.with_classes({**names, first: ["another"]}), replace(data, name="others")):
            evaluate_variants(small_model, other, steps)
        for settings in ({"threshold": 0.5}, {"synonyms": True, "logit_scale": 7.0}, {"templates": "a {}"}):
            evaluate_variants(small_model, data, replace(steps, **settings))
        for variants in (["a", "b"], ["b", "a"]):
            evaluate_variants(small_model, data, steps, variants=variants)
        assert len(set(asked)) == len(asked) == 8
        evaluate_variants(small_model, data, steps)
        assert asked[-1] == asked[0]


class TestTheLoop:
    """What is measured, by a pipeline that gives the results."""

    @pytest.fixture
    def ended(self, monkeypatch):
        """A function from results as they end to what is made of them, the progress, and the calls."""
        calls = []
        model = SimpleNamespace(engines=1, share_cores=lambda count: calls.append(count))
        work = SimpleNamespace(model=model, labels=lambda: ["a", "b", "c", "d"], windows=None)
        kept = SimpleNamespace(finished={1: [[7]]}, keep=lambda index, counts: calls.append((index, counts)))
        monkeypatch.setattr(loop, "in_threads", lambda *_: None)

        def measured(results):
            def run(self, sources):
                asked = {source.key: source for _, source in sources}
                assert sorted(asked) == [0, 2, 3]
                yield from ((key, asked[key], result) for key, result in results.items())

            monkeypatch.setattr(loop.Pipeline, "run", run)
            progress = Progress()
            return loop.measured(work, None, kept, progress, loop.Running()), progress, calls

        return measured

    def test_counts_are_in_the_order_of_the_set_whatever_ends_first(self, ended):
        (found, failures), progress, calls = ended({3: (3, [[3]]), 0: (0, [[0]]), 2: (2, [[2]])})
        assert (list(found.items()), failures) == ([(0, [[0]]), (1, [[7]]), (2, [[2]]), (3, [[3]])], [])
        assert (progress.total, progress.kept, progress.done, progress.failed) == (4, 1, 3, 0)
        assert calls == [(3, [[3]]), (0, [[0]]), (2, [[2]]), 1]  # each kept when it ends, and the cores given back

    def test_a_failure_has_its_image_once(self, ended):
        (found, failures), progress, _ = ended({0: Failure("a: damaged"), 2: Failure("too slow"), 3: (3, [[3]])})
        assert (list(found), failures) == ([1, 3], ["a: damaged", "c: too slow"])
        assert (progress.done, progress.failed) == (1, 2)

    @pytest.mark.parametrize(("windows", "most"), [(None, MAX_PIXELS), (Windows(32, 16, 8), MAX_WINDOWED_PIXELS)])
    def test_windows_take_larger_images(self, monkeypatch, windows, most):
        def read(image, limit):
            raise ImageError(f"{image} {limit}")

        monkeypatch.setattr(loop, "load_image", read)
        work = SimpleNamespace(windows=windows, image=lambda index: f"image {index}")
        with pytest.raises(ImageError, match=f"^image 5 {most}$"):
            loop.Measuring.prepare(work, Source(Path("a"), "5", 5), {})

    @pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}], ids=str)
    def test_settings_are_those_of_a_batch(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            loop.Running(**wrong)

    def test_json_has_no_nan(self):
        assert [loop.number(each) for each in (np.float64("nan"), np.float64(0.25), 0.0)] == [None, 0.25, 0.0]


def test_scenes_lie_in_rows_of_a_sheet(tmp_path):
    """Four of 2×2 pixels, three a row; masks count from 1 in the order of the nouns."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    sheet, masks = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    for place, colour in enumerate(colours):
        y, x = divmod(place, 3)
        sheet[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = colour
        masks[2 * y, 2 * x : 2 * x + 2] = 1, 2
    Image.fromarray(sheet).save(tmp_path / "scenes.webp", lossless=True)
    Image.fromarray(masks).save(tmp_path / "masks.png")
    index = {"side": 2, "columns": 3, "nouns": [["cat", "dog"]] * 4}
    (tmp_path / "scenes.json").write_text(json.dumps(index))
    scenes = load_scenes(tmp_path)
    assert [each.image.getcolors() for each in scenes] == [[(4, colour)] for colour in colours]
    for each in scenes:
        assert each.masks["cat"].tolist() == [[True, False], [False, False]]
        assert each.masks["dog"].tolist() == [[False, True], [False, False]]
