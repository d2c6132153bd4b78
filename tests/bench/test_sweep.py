"""Real providers over the embedded model: they agree, the wrong and the missing are refused, work is counted."""

import functools
import json
import re
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from gem_fast.bench import authors, sweep
from gem_fast.bench.measure import Plan, check
from gem_fast.bench.onnx_provider import export_graph
from gem_fast.bench.processes import ProviderError, ProviderProcess
from gem_fast.bench.providers import ENGINE_TOLERANCE, Provider, Subject
from gem_fast.bench.subjects import make_subject, random_pixels
from gem_fast.bench.sweep import Sweep
from gem_fast.bench.torch_provider import build
from gem_fast.bench.work import forward_work
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import gem_fast
from gem_fast.cli import app
from gem_fast.cli.bench import Rival
from gem_fast.options import GemOptions
from gem_fast.towers.packing import pack_vision
from gem_fast.towers.served import vision_config
from gem_fast.towers.vision_config import VisionConfig

needs_openvino = pytest.mark.skipif(not find_spec("openvino"), reason="OpenVINO is not installed here")
SMALL = VisionConfig(width=64, layers=4, heads=2, mlp_width=128, patch_size=8, grid=(6, 6), embed_dim=32)


@pytest.fixture(scope="module")
def gem_tiny(tmp_path_factory):
    """The embedded model as a subject, and its eager features in float32 by batch and size."""
    subject = make_subject("gem-tiny", tmp_path_factory.mktemp("subject"))
    return subject, functools.cache(lambda batch, size: sweep.reference(subject, batch, size))


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # of switching oneDNN off
@pytest.mark.parametrize("projections", ["qkv", "qk", "v"])
def test_counted_operations_are_those_that_run(projections):
    from gem_fast.towers.vit import GemVisionTransformer

    options = GemOptions(gem_blocks=3, iterations=2, projections=projections)
    vision = GemVisionTransformer(SMALL, options, "reference").eval()
    # torch counts the products of SDPA and of linear layers only where they are plain ones.
    plain = torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), plain[0], plain[1]:
        vision(torch.randn(2, 3, 48, 48))
    counted = forward_work(SMALL, 2, 48, options)
    assert counted.flops == counter.get_total_flops()


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("name", list(gem_fast.methods()))
def test_counted_operations_of_every_method_are_those_that_run(name):
    from gem_fast.towers.vit import GemVisionTransformer

    method = replace(gem_fast.methods()[name], blocks=min(gem_fast.methods()[name].blocks, 3))
    vision = GemVisionTransformer(SMALL, method, "reference").eval()
    plain = torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), plain[0], plain[1]:
        vision(torch.randn(2, 3, 48, 48))
    assert forward_work(SMALL, 2, 48, method).flops == counter.get_total_flops()


def test_each_method_has_a_reference_of_its_own(gem_tiny):
    asked = Sweep(models=["gem-tiny"], backends=["auto", "sdpa"], methods=["gem", "naclip"])
    assert [provider.name for provider in asked.providers()] == ["engine", "naclip", "sdpa", "naclip sdpa"]
    references = [sweep.reference(gem_tiny[0], 1, 64, method=name) for name in asked.methods]
    wrong = check(asked.providers()[1], references[0], references[1])[1]
    assert wrong is not None  # or a method that computes another's features would pass
    with pytest.raises(ValueError, match="no method is called 'sam'"):
        Sweep(methods=["sam"])


def test_the_floor_of_the_paper_model_is_the_documented_one():
    config = VisionConfig(width=768, layers=12, heads=12, mlp_width=3072, patch_size=16, grid=(14, 14), embed_dim=512)
    work = forward_work(config, 1, 448)
    assert work.linear == pytest.approx(131e9, rel=0.02)
    assert work.attention == pytest.approx(89e9, rel=0.02)
    assert forward_work(config, 4, 448).flops == 4 * work.flops
    assert forward_work(config, 1, 448, dtype="bfloat16").traffic == work.traffic / 2


def test_steps_of_the_waterfall_are_measured_besides():
    outcome = sweep.run(
        Sweep(("gem-tiny",), (64,), backends=(), plan=Plan(rounds=2)), steps=sweep.waterfall("sdpa")[-1:]
    )
    (row,) = outcome.rows
    assert (row.params["mode"], row.params["dtype"], len(row.seconds)) == ("waterfall", "bfloat16", 2)
    assert 1e-5 < row.extra["error"] < 2e-2
    assert set(outcome.ceilings) == {"bfloat16"}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("onnx-ort", "float32"), ("onnx-ort", "float16"), ("onnx-onnx", "float32"), ("onnx-portable", "float16")]
    + [("onnx-int8", "int8")]
    + [pytest.param("openvino", dtype, marks=needs_openvino) for dtype in ("float32", "bfloat16")],
)
def test_graphs_run_where_torch_cannot_be_imported(monkeypatch, tmp_path, gem_tiny, name, dtype):
    subject, truth = gem_tiny
    provider = sweep.rival(name, dtype)
    export_graph(provider, subject)
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not for this process')")
    monkeypatch.syspath_prepend(tmp_path)
    with ProviderProcess(provider, subject, threads=1) as process:
        for batch, size in ((3, 64), (1, 96)):
            features = process.forward(random_pixels(batch, size), answer=True).features
            assert check(provider, features[[0, -1]], truth(batch, size)) == (
                pytest.approx(0, abs=ENGINE_TOLERANCE[dtype]),
                None,
            )
    if provider == sweep.rival("onnx-ort", "float32"):
        with pytest.raises(ProviderError, match="torch is not for this process"):
            ProviderProcess(Provider("engine", "engine"), subject)


def test_openvino_that_is_missing_is_told_with_its_extra(monkeypatch, tmp_path, gem_tiny):
    (tmp_path / "openvino.py").write_text("raise ImportError('none', name='openvino')")
    monkeypatch.syspath_prepend(tmp_path)
    started, ((_, reason),) = sweep.start(ExitStack(), [sweep.rival("openvino", "float32")], gem_tiny[0], threads=1)
    assert not started
    assert 'needs openvino, which is not installed: pip install "gem_fast[bench]"' in reason


def test_the_command_takes_every_rival():
    assert tuple(each.value for each in Rival) == sweep.RIVALS


def test_rivals_compute_the_types_that_they_have():
    asked = Sweep(dtypes=("bfloat16", "float16"), against=("onnx-ort", "eager", "authors"))
    assert [p.key for p in asked.providers()] == [
        "authors float32",
        "onnx-ort float16",
        "eager bfloat16",
        "eager float16",
        "engine bfloat16",
        "engine float16",
    ]
    assert [p.key for p in Sweep(dtypes=("bfloat16", "float16"), against=("openvino",)).providers()] == [
        "openvino bfloat16",
        "engine bfloat16",
        "engine float16",
    ]
    assert Sweep(dtypes=("bfloat16",), against=("onnx-onnx",)).providers()[0].key == "onnx-onnx float32"
    assert Sweep(dtypes=("bf16", "fp16")).providers() == Sweep(dtypes=("bfloat16", "float16")).providers()


def test_a_graph_that_was_not_written_is_told():
    provider, nowhere = sweep.rival("onnx-ort", "float32"), Subject("none", weights="no-such-file.safetensors")
    started, ((refused, reason),) = sweep.start(ExitStack(), [provider], nowhere)
    assert (started, refused) == ([], provider)
    assert re.match(r"export of onnx-ort float32: .*no-such-file", reason)


@pytest.mark.skipif(authors.why_missing() is not None, reason="the authors' package is not installed here")
def test_the_authors_package_agrees_with_the_engine(tmp_path):
    subject = make_subject("ViT-S-16", tmp_path)
    with torch.inference_mode():
        engine = build(Provider("engine", "engine"), subject)(torch.from_numpy(random_pixels(2, 64))).numpy()
    provider = Provider("authors", "authors")
    with ProviderProcess(provider, subject) as process:
        features = process.forward(random_pixels(2, 64), answer=True).features
    for truth in (engine, sweep.reference(subject, 2, 64)):
        assert check(provider, features, truth) == (pytest.approx(0, abs=1e-5), None)


def test_random_weights_leave_no_bias_at_zero(tmp_path):
    from safetensors.torch import load_file

    subject = make_subject("ViT-S-16", tmp_path)
    state = load_file(subject.weights)
    assert all(value.abs().max() > 0 for value in state.values())
    assert torch.equal(load_file(make_subject("ViT-S-16", tmp_path).weights)["conv1.weight"], state["conv1.weight"])
    assert pack_vision(state, vision_config(subject.model_cfg), GemOptions()) is not None
    assert (random_pixels(2, 32)[:1] == random_pixels(1, 32)).all()


def test_what_no_case_could_be_made_of_is_refused():
    for settings, message in (
        ({"against": ("tensorflow",)}, "against must be one of"),
        ({"mode": "fast"}, "mode must be one of"),
        ({"sizes": ()}, "sizes must name"),
        ({"batches": (0,)}, "batches must name"),
        ({"dtypes": ()}, "dtypes must name at least one"),
        ({"dtypes": ("int4",)}, "dtype must be one of float32, bfloat16, float16, int8"),
    ):
        with pytest.raises(ValueError, match=message):
            Sweep(**settings)
    with pytest.raises(ValueError, match="size 60 is no multiple of gem-tiny's patch, 8"):
        sweep.run(Sweep(("gem-tiny",), (60,)))


@pytest.mark.skipif(not find_spec("matplotlib"), reason="the report's plots need matplotlib")
def test_the_command_measures_every_provider_that_is_here_and_writes_its_files(monkeypatch, tmp_path):
    monkeypatch.setenv(authors.VARIABLE, str(tmp_path))
    command = ["bench", "--model", "gem-tiny", "--batch-size", "2", "--rounds", "2", "--threads", "1"]
    rivals = ["--against", "authors", "--against", "onnx-ort", "--mode", "throughput"]
    files = ["--json", str(tmp_path / "run.json"), "--markdown", str(tmp_path / "run.md"), "--plots", str(tmp_path)]
    cases = ["--size", "32", "--size", "64", "--method", "gem", "--method", "naclip"]
    result = CliRunner().invoke(app, [*command, *cases, *rivals, *files])
    assert result.exit_code == 1, result.output  # one has no figure
    assert "throughput gem-tiny 2x64" in result.output
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["machine_info"]["threads"] == 1
    for size in (32, 64):
        rows = [entry for entry in content["benchmarks"] if entry["params"]["size"] == size]
        assert [entry["params"]["kind"] for entry in rows] == ["onnx", "engine", "engine"]
        assert [entry["params"]["method"] for entry in rows] == ["gem", "gem", "naclip"]
        assert all(entry["extra_info"]["error"] < 1e-5 for entry in rows)
        assert {entry["params"]["mode"] for entry in rows} == {"throughput"}
    refused = content["gem_fast"]["refused"]
    assert ["`make authors`" in entry["reason"] for entry in refused] == [True, True]
    assert "## throughput gem-tiny 2x64" in (tmp_path / "run.md").read_text()
    assert {path.name for path in tmp_path.glob("*.png")} == {"resolution.png"}
    assert "time per counted FLOP, engine float32, gem-tiny, batch 2, throughput: 32² 1.00, 64² " in result.output
    for bad in (["--model", "nothing"], ["--model", "gem-tiny", "--size", "60"]):
        assert CliRunner().invoke(app, ["bench", *bad]).exit_code == 2
