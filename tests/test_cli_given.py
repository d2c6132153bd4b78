"""What each command hands on of its options, none of which has its default here; `segment`'s are in `test_cli.py`."""

from importlib import import_module
from types import SimpleNamespace

import pytest

import gem_fast
from gem_fast.errors import ExportError
from tests.command_line import invoke


@pytest.fixture
def given(monkeypatch):
    """A function that puts a stand-in in a name's place and gives the list of what it is called with."""

    def replaced(name, result):
        calls = []

        def stand_in(*arguments, **named):
            calls.append((*arguments, named))
            if isinstance(result, Exception):
                raise result
            return result

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
