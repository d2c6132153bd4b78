"""What each command hands on of its options, none at its default (`segment`'s: `test_cli.py`), and how it ends."""

import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
from gem_fast.export.verdict import DisagreementError

import gem_fast
from gem_fast.cli.progress import Style
from gem_fast.errors import ExportError, ModelError
from gem_fast.runtime.agreement import Comparison
from tests.command_line import invoke


@pytest.fixture
def given(monkeypatch):
    """A function that puts a stand-in in a name's place and gives the list of what it is called with."""

    def replaced(name, result):
        calls = []

        def stand_in(*arguments, **named):
            calls.append((*arguments, named))
            if isinstance(result, BaseException):
                raise result
            return result(*arguments, **named) if callable(result) else result

        where, _, attribute = name.rpartition(".")
        monkeypatch.setattr(import_module(where), attribute, stand_in)
        return calls

    return replaced


def test_export(given, tmp_path):
    calls = given("gem_fast.cli.formats.write_export", ["told"])
    (tmp_path / "words.txt").write_text("dog, hound\ncat, kitten\n")
    family = ["--pooling", "value", "--rotated", "--gem-blocks", 3, "--iterations", 2, "--inverse-temperature", 12.5]
    loading = ["--model", "m", "--pretrained", "p", "--weights", "w", "--tokenizer", "t", "--device", "cuda:1"]
    words = ["--prompt", "car", "--prompt", "cat", "--prompts-file", tmp_path / "words.txt", "--background", "sky"]
    graph = ["--opset", 20, "--attention", "portable", "--dtype", "fp16", "--size", "64x32", "--size", 48]
    graph += ["--quantize", "int8", "--calibrate", "photos", "--original", "--with-preprocess", "--dynamic-size"]
    served = ["--max-batch", 3, "--instances", 2, "--queue-delay", 7, "--no-check", "--format", "pt2", "--with-scores"]
    method = ["--method", "clip", "--feature-surgery"]
    done = invoke("export", "--out", tmp_path, *loading, *words, *graph, *served, *method, *family)
    assert (done.exit_code, done.stdout.split("\n")[0]) == (0, "told"), done.output
    ((out, format, loaded, options),) = calls
    assert (out, format) == (tmp_path, "pt2")
    vocabulary = options.pop("vocabulary")
    assert list(vocabulary.classes.items()) == [("car", ["car"]), ("cat", ["cat", "kitten"]), ("dog", ["dog", "hound"])]
    assert (vocabulary.background, vocabulary.with_scores) == (("sky",), True)
    assert {name: str(value) for name, value in loaded.items()} == {
        "name": "m",
        "pretrained": "p",
        "weights": "w",
        "tokenizer": "t",
        "device": "cuda:1",
        "method": "clip",
        "feature_surgery": "True",
        "pooling": "value",
        "rotated": "True",
        "gem_blocks": "3",
        "iterations": "2",
        "inverse_temperature": "12.5",
    }
    assert str(options.pop("calibrate")) == "photos"
    assert options == {
        "sizes": ["64x32", "48"],
        "dynamic_size": True,
        "opset": 20,
        "attention": "portable",
        "dtype": "float16",
        "quantize": "int8",
        "original": True,
        "with_preprocess": True,
        "check": False,
        "serving": {"max_batch": 3, "instances": 2, "queue_delay": 7},
    }


def test_evaluate(given, monkeypatch, tmp_path):
    monkeypatch.setattr("gem_fast.evaluation.plan.Plan._check_models", lambda self: None)
    calls = given("gem_fast.cli.evaluate._evaluate", 1)
    steps = ["--size", 64, "--resize", "squash", "--window", 64, "--stride", 32, "--templates", "imagenet"]
    steps += [
        "--logit-scale",
        7,
        "--threshold",
        0.25,
        "--area-threshold",
        0.125,
        "--no-synonyms",
        "--no-background-words",
    ]
    plan = ["--protocol", "sclip", "--model", "a", "--model", "b:c", "--method", "clip", "--sweep", "iterations=0,1"]
    loading = ["--weights", "w", "--tokenizer", "t", "--dtype", "bf16", "--text-dtype", "fp16", "--device", "cuda:1"]
    loading += ["--pooling", "value", "--rotated"]
    running = ["--batch-size", 3, "--workers", 2, "--progress", "json"]
    running += ["--json", "rows.json", "--plot", "p", "--resume"]
    done = invoke("evaluate", "--data", "scenes", *plan, *steps, *loading, *running)
    assert done.exit_code == 1, done.output  # as many as one image could not be used
    ((asked, ran, style, output, _),) = calls
    ((_, taken),) = asked.sets
    chosen = {"size": 64, "resize": "squash", "window": 64, "stride": 32, "templates": "imagenet", "logit_scale": 7}
    chosen |= {
        "threshold": 0.25,
        "area_threshold": 0.125,
        "synonyms": False,
        "background_words": False,
        "name": "sclip",
    }
    assert {name: getattr(taken, name) for name in chosen} == chosen
    assert (asked.models, asked.methods, asked.sweep) == (("a", "b:c"), ("clip",), ("iterations=0,1",))
    assert {name: str(value) for name, value in asked.loading.items()} == {
        "weights": "w",
        "tokenizer": "t",
        "dtype": "bfloat16",
        "text_dtype": "float16",
        "device": "cuda:1",
        "pooling": "value",
        "rotated": "True",
    }
    assert (ran, style.value) == ({"batch_size": 3, "workers": 2}, "json")
    assert (output.rows.name, output.plot.name, output.resume) == ("rows.json", "p", True)


@pytest.mark.parametrize(("complete", "status"), [(True, 0), (False, 1)])
def test_bench(given, complete, status):
    calls = given("gem_fast.bench.runs.measure_run", complete)
    given("gem_fast.loading.usable_device", None)
    cases = ["--model", "a", "--model", "b", "--size", 32, "--batch-size", 2, "--dtype", "bf16", "--backend", "sdpa"]
    cases += ["--method", "clip", "--against", "eager", "--against", "onnx-ort", "--mode", "throughput"]
    told = ["--json", "j", "--markdown", "m", "--waterfall"]
    done = invoke("bench", *cases, *told, "--rounds", 3, "--budget", 5, "--device", "cuda:1", "--threads", 4)
    assert done.exit_code == status, done.output
    ((asked, files, _, _, waterfall, _),) = calls
    found = asked.models, asked.sizes, asked.batches, asked.dtypes, asked.backends, asked.methods, asked.against
    assert [list(each) for each in found] == [
        *(["a", "b"], [32], [2], ["bfloat16"], ["sdpa"], ["clip"], ["eager", "onnx-ort"])
    ]
    assert (asked.mode, asked.device, asked.threads) == ("throughput", "cuda:1", 4)
    assert (asked.plan.rounds, asked.plan.budget, asked.plan.calls) == (3, 5, 8)
    assert (str(files.json), str(files.markdown), waterfall) == ("j", "m", True)


def test_bench_compare(given):
    calls = given("gem_fast.bench.runs.compare_runs", [])
    assert invoke("bench", "compare", "a", "b", "--tolerance", 0.5, "--relative-to", "first").exit_code == 0
    ((before, after, _, named),) = calls
    assert (str(before), str(after), named) == ("a", "b", {"tolerance": 0.5, "relative_to": "first"})


@pytest.mark.parametrize(
    ("study", "options", "wanted"),
    [
        ("clustering", ["--seed", 7], ["OUT", 7]),
        ("kmeans", ["--seed", 7], ["OUT", 7]),
        ("lipschitz", ["--model", "m", "--pretrained", "p"], [("m", "p"), "OUT"]),
        (
            "localization",
            ["--model", "m", "--pretrained", "p", "--data", "d", "--root", "r", "--images", 3, "--size", 64],
            [("m", "p"), "d of r", "OUT", 3, 64],
        ),
    ],
)
@pytest.mark.parametrize("failures", [(), ("a.png: damaged",)], ids=["whole", "failures"])
def test_study(given, monkeypatch, tmp_path, study, options, wanted, failures):
    monkeypatch.setattr(gem_fast, "load", lambda *named: named)
    monkeypatch.setattr("gem_fast.evaluation.open_data", lambda name, root: f"{name} of {root}")
    calls = given(f"gem_fast.evaluation.studies.{study}", SimpleNamespace(failures=failures, lines=("told",)))
    done = invoke("study", study, "--out", tmp_path, *options)
    assert done.exit_code == len(failures)
    assert "told" in done.stdout
    assert calls == [(*(tmp_path if each == "OUT" else each for each in wanted), {})]


def test_segment_with_a_runtime(given, folder, tmp_path):
    calls = given("gem_fast.runtime.GemRuntime", ExportError("asked"))
    always = ["segment", folder, "--prompt", "cat", "--out", tmp_path / "out", "--runtime", folder]
    options = ["--provider", "openvino", "--engine-cache", "c", "--precision", "accuracy", "--threads", 3]
    assert "asked" in invoke(*always, *options, "--batch-size", 5, "--feature-surgery").stderr
    invoke(*always)
    named = [{**each, "cache": each["cache"] and str(each["cache"])} for _, each in calls]
    assert [path for path, _ in calls] == [folder] * 2
    assert named == [
        {
            "provider": "openvino",
            "cache": "c",
            "precision": "accuracy",
            "threads": 3,
            "max_batch": 5,
            "feature_surgery": True,
        },
        {"provider": "cpu", "cache": None, "precision": None, "threads": None, "max_batch": 8, "feature_surgery": None},
    ]


@pytest.mark.parametrize(("failed", "status"), [(0, 0), (2, 1)])
def test_segment_on_a_cluster(given, folder, tmp_path, failed, status):
    calls = given("gem_fast.batch.ray.segment_on_ray", SimpleNamespace(done=1, failed=failed, rows="rows"))
    always = ["segment", folder, "--prompt", "cat", "--out", tmp_path / "out", "--engine", "ray"]
    options = ["--address", "auto", "--checkpoint", "c", "--actors", 3, "--device", "cuda:1", "--format", "tar"]
    done = invoke(*always, *options)
    assert done.exit_code == status, done.output
    assert "1 image segmented into rows\n" in done.stdout
    assert ("2 failed: their rows have an error" in done.stderr) == bool(failed)
    invoke(*always)
    assert [each[1:4] for each in calls] == [([str(folder)], {"cat": ["cat"]}, tmp_path / "out")] * 2
    names = ("address", "checkpoint", "actors", "gpus", "format")
    assert [calls[0][-1][name] for name in names] == ["auto", "c", 3, 1, "tar"]
    assert [calls[1][-1].get(name) for name in names] == [None, None, None, 0, None]  # Parquet is the cluster's default


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--address", "auto", "--actors", 2], "--address, --actors can only go with --engine ray"),
        (["--checkpoint", "c"], "--checkpoint can only go with --engine ray"),
        (
            ["--engine", "ray", "--workers", 2, "--timeout", 3, "--retries", 1, "--max-errors", 1],
            "--workers, --timeout, --retries, --max-errors can not go with --engine ray",
        ),
        (["--engine", "ray", "--stats", "s", "--progress", "json"], "--progress, --stats can not go with --engine ray"),
    ],
)
def test_options_of_the_other_way_to_run(folder, tmp_path, options, told):
    done = invoke("segment", folder, "--prompt", "cat", "--out", tmp_path / "out", *options)
    assert (done.exit_code, told in done.stderr) == (2, True), done.output


def test_segment(run, folder, tmp_path):
    """The options of a run that `test_cli.py`, which does run, leaves at their defaults."""
    options = ["--processes", 2, "--window", 64, "--stride", 32, "--timeout", 0, "--heatmaps", "--no-overlays"]
    options += ["--label-size", "model", "--templates", "the {}", "--templates", "a {}", "--overwrite"]
    assert run("segment", outcome(tmp_path), *options).exit_code == 0
    ((*_, named),) = run.calls
    wanted = {"processes": 2, "window": 64, "stride": 32, "timeout": None, "heatmaps": True, "overlays": False}
    wanted |= {"label_size": "model", "templates": ["the {}", "a {}"], "overwrite": True, "resume": False}
    assert {name: named[name] for name in wanted} == wanted
    assert (
        "label_size must be model or a positive number"
        in run("segment", outcome(tmp_path), "--label-size", "9px").stderr
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {
                "model": "m",
                "pretrained": "p",
                "weights": "w",
                "tokenizer": "t",
                "dtype": "bf16",
                "text_dtype": "bf16",
                "device": "cpu",
                "text_cache": "c",
                "method": "gem",
                "gem_blocks": 1,
                "iterations": 1,
                "inverse_temperature": 1,
                "pooling": "head",
                "rotated": None,
                "sigmoid": None,
            },
            "can't go with --runtime",
        ),
        ({"provider": "cpu", "engine_cache": "c", "precision": "float32", "threads": 1}, "can only go with --runtime"),
    ],
    ids=["engine", "runtime"],
)
def test_options_of_the_other_engine(folder, tmp_path, options, told):
    names = [f"--{name.replace('_', '-')}" for name in options]
    pairs = zip(names, options.values(), strict=True)
    command = ["segment", folder, "--prompt", "cat", "--out", tmp_path / "out"]
    command += ["--runtime", folder] * ("model" in options)
    done = invoke(*command, *(part for pair in pairs for part in pair if part is not None))
    assert (done.exit_code, done.stderr) == (2, f"gem-fast: {', '.join(names)} {told}\n")


@pytest.mark.parametrize("done", [0, 1])
def test_what_was_finished_is_told_where_there_is_something(run, tmp_path, done):
    def end(*_, progress, **__):
        progress.done = done
        raise OSError("no room")

    told = run("segment", end)
    kept = f"; what was finished is in {tmp_path / 'out'}, and --resume goes on from there" * done
    assert (told.exit_code, told.stderr) == (2, f"gem-fast: no room{kept}\n")


RUNS = {
    "bench": (["bench"], "gem_fast.bench.runs.measure_run"),
    "report": (["bench", "report", "a.json"], "gem_fast.bench.runs.report_runs"),
    "demo": (["demo", "OUT"], "gem_fast.demo.run"),
    "evaluate": (["evaluate", "--data", "scenes"], "gem_fast.cli.evaluate._evaluate"),
    "export": (["export", "--out", "OUT"], "gem_fast.cli.formats.write_export"),
    "segment": (["segment", "IMAGES", "--prompt", "cat", "--out", "OUT"], "gem_fast.batch.segment_files"),
    "ray": (
        ["segment", "IMAGES", "--prompt", "cat", "--out", "OUT", "--engine", "ray"],
        "gem_fast.batch.ray.segment_on_ray",
    ),
    "study": (["study", "clustering", "--out", "OUT"], "gem_fast.evaluation.studies.clustering"),
    "tune": (["tune"], "gem_fast.tile_tuning.tune_tiles"),
}


@pytest.fixture
def run(given, monkeypatch, folder, tmp_path):
    """A function that invokes a command of `RUNS`, whose work ends as it is told."""

    def run(name, end, *more):
        monkeypatch.setattr(gem_fast, "load", lambda *named, **options: None)
        command, works = RUNS[name]
        run.calls = given(works, end)
        named = {"IMAGES": folder, "OUT": tmp_path / "out"}
        return invoke(*(named.get(each, each) for each in command), *more)

    return run


@pytest.mark.parametrize(
    "error", [OSError("gone wrong"), ValueError("gone wrong")], ids=lambda error: type(error).__name__
)
@pytest.mark.parametrize("name", RUNS)
def test_an_error_is_told_in_a_line(run, name, error):
    done = run(name, ModelError("gone wrong") if name == "demo" and isinstance(error, ValueError) else error)
    assert (done.exit_code, done.stderr) == (2, "gem-fast: gone wrong\n")


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("evaluate", (), ""),
        ("evaluate", ("--json", "rows.json"), "; --resume goes on with rows.json"),
        ("export", (), "; nothing is written"),
        ("segment", (), "; what was finished is in OUT, and --resume goes on from there"),
        ("ray", (), "; with --checkpoint, --resume goes on from there"),
    ],
)
def test_an_interruption_is_130(run, tmp_path, name, more, told):
    done = run(name, KeyboardInterrupt(), *more)
    assert (done.exit_code, done.stderr) == (130, f"interrupted{told.replace('OUT', str(tmp_path / 'out'))}\n")


def test_an_export_that_does_not_agree_shows_its_comparisons(run):
    right = Comparison("image.onnx", "patch_features", "32x48", 3, "noise", absolute=0.5, relative=1e-7)
    wrong = Comparison("head.onnx", "labels", None, 2, "sample", 0.25, 0.125, 0.0625, labels=0.75, least_labels=0.875)
    done = run("export", DisagreementError([right, wrong]))
    assert done.exit_code == 2
    rows = [" ".join(line.split()) for line in done.stderr.splitlines()]
    assert "patch_features 32x48 3 noise 5.0e-01 1.0e-07 2.0e-06 ok" in rows
    assert "head: labels 2 sample 2.5e-01 1.2e-01 6.2e-02 75.00% 87.50% wrong" in rows
    assert rows[-1].startswith("gem-fast: 1 of 2 comparisons differ")
    assert "the first is labels of head.onnx: relative error 0.12 (bound 0.062), labels equal on 75" in rows[-1]


def case(name, failures):
    """A case of a plan that is measured at once."""
    row = {"data": name, "model": "m", "method": "gem", "protocol": "gem", "miou": 0.5, "settings": {}}
    row |= {"images_per_second": 2.0, "pixel_accuracy": 0.25, "mean_accuracy": None, "frequency_weighted_iou": 1.0}
    found = SimpleNamespace(failures=[f"{name}{i}.png: damaged" for i in range(failures)], row=row)
    data, model = SimpleNamespace(name=name, images=range(1000)), SimpleNamespace(name="m")
    return SimpleNamespace(model=model, method="gem", data=data, paper=46.2, evaluate=lambda **_: [found])


def test_failures_of_all_cases_are_counted_and_some_are_told(capsys):
    command = import_module("gem_fast.evaluation") and sys.modules["gem_fast.cli.evaluate"]
    plan = SimpleNamespace(cases=lambda: iter([case("a", 5), case("b", 6)]))
    assert command._evaluate(plan, {}, Style.none, command._Output(None, None, False)) == 11
    told = capsys.readouterr()
    assert "m, gem, a: 1,000 images" in told.err
    assert [told.err.count(each) for each in ("failed: a", "failed: b", "failed: 1 more", "more")] == [5, 5, 1, 1]
    cells = [[cell.strip() for cell in line.split("│")] for line in told.out.splitlines() if "│" in line]
    assert [each[1:-1] for each in cells] == [
        [name, "m", "gem", "gem", "50.00", "46.2", "25.00", "–", "100.00", "2.0"] for name in ("a", "b")
    ]


def outcome(tmp_path, **changes):
    """What a run may have come to."""
    told = {"done": 0, "failed": 0, "kept": 0, "passed_over": (), "stopped": None, "reasons": {}}
    return SimpleNamespace(**told | {"summary": tmp_path / "out" / "summary.jsonl"} | changes)


@pytest.mark.parametrize(
    ("came_to", "status", "told"),
    [
        ({"done": 1}, 0, ""),
        ({"done": 0, "stopped": "the disk is full"}, 1, "the disk is full\n"),
        (
            {"done": 1, "failed": 1, "reasons": {"damaged": 1}},
            1,
            "failed: 1 × damaged\n1 of 2 images failed; all of them are in OUT/errors.jsonl\n",
        ),
    ],
    ids=["whole", "stopped", "failed"],
)
def test_how_a_run_ended(run, tmp_path, came_to, status, told):
    done = run("segment", outcome(tmp_path, **came_to), "--progress", "none")
    assert (done.exit_code, done.stderr) == (status, told.replace("OUT", str(tmp_path / "out")))
    image = "image" if came_to["done"] == 1 else "images"
    assert done.stdout == f"{came_to['done']} {image} segmented into {tmp_path / 'out'} (0.00 images/s)\n"


def test_an_image_of_another_part_is_told_before_anything_is_loaded(run, monkeypatch, tmp_path):
    (tmp_path / "out" / "part-2-of-3").mkdir(parents=True)
    (tmp_path / "out" / "part-2-of-3" / "summary.jsonl").touch()
    (tmp_path / "out" / "part-2-of-3" / "run.json").write_text("{}")
    for part, told in (("1/2", "holds part-2-of-3"), ("2/3", "part-2-of-3 holds an earlier run: take --resume")):
        done = run("segment", AssertionError("it ran"), "--part", part)
        assert (done.exit_code, told in done.stderr) == (2, True), done.output
