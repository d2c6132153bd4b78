"""`gem-fast models`, `gem-fast info` and every `--help`."""

import re
import warnings
from types import SimpleNamespace

import pytest
import torch
from gem_fast.kernels import triton_host
from gem_fast.kernels.backends import OPERATIONS
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

import gem_fast
from gem_fast.cli import app
from gem_fast.dtypes import DTYPES
from gem_fast.prompts import read_prompt_file
from tests.command_line import invoke, plain

COMMANDS = ("demo", "segment", "models", "info")


def test_models_lists_each_with_its_tags():
    done = invoke("models")
    assert done.exit_code == 0
    for name in gem_fast.supported_models():
        assert re.search(rf"(?m)^\W*{re.escape(name)}\s", done.stdout), name
    assert "openai" in done.stdout
    assert "(embedded)" in done.stdout
    assert "EVA02-E-14: not supported, its image tower is EVA02-E, whose blocks" in done.stdout
    assert "RN50: not supported, its vision tower is a ResNet" in done.stdout


def test_models_in_a_pipe_has_a_line_for_each():
    """`gem-fast models | grep B-16` must find the tags on the line of the name."""
    done = CliRunner().invoke(app, ["models"], env={"COLUMNS": "60"})
    (line,) = [line for line in done.stdout.splitlines() if re.match(r"\W*ViT-B-32\s", line)]
    for tag in gem_fast.pretrained_tags("ViT-B-32"):
        assert tag in line


def test_words_of_the_embedded_model(tmp_path):
    """They are a file of prompts, and each is one that its text tower has rows for."""
    done = invoke("models", "gem-tiny")
    assert done.exit_code == 0
    assert "size 96, threshold 0.95, scale 15" in done.stdout
    (tmp_path / "words.txt").write_text(done.stdout, encoding="utf-8")
    classes = read_prompt_file(tmp_path / "words.txt")
    assert len(classes) == 100
    assert classes["car"] == ["car", "automobile"]
    text = gem_fast.load("gem-tiny").text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.warn_unknown([word for words in classes.values() for word in words])


def test_one_model_of_open_clip():
    done = invoke("models", "ViT-L-14-336")
    assert done.exit_code == 0
    first, *tags = done.stdout.splitlines()
    assert "patches of 14 px, trained at 336×336; defaults: size 448, threshold 0.85, scale 100" in first
    assert tags == gem_fast.pretrained_tags("ViT-L-14-336")
    assert invoke("models", "ViT-S-32-alt").stdout.splitlines()[1:] == ["random"]


def test_models_of_other_families():
    assert (
        "trained at 384×384; defaults: size 384, threshold 0.85, scale 14.2857" in invoke("models", "blip-base").stdout
    )
    done = invoke("models", "ViT-B-16-SigLIP")
    assert "scale of the weights" in done.stdout
    assert "its tokenizer is that of timm/ViT-B-16-SigLIP" in done.stdout


@pytest.mark.parametrize(("name", "reason"), [("ViT-B-17", "no model is called 'ViT-B-17'"), ("RN50", "a ResNet")])
def test_a_model_that_is_none(name, reason):
    done = invoke("models", name)
    assert done.exit_code == 2
    assert reason in plain(done.stderr)


def test_version():
    done = invoke("--version")
    assert (done.exit_code, done.stdout) == (0, f"gem-fast {gem_fast.__version__}\n")


def test_info_says_what_a_report_needs():
    done = invoke("info")
    assert done.exit_code == 0
    for expected in (
        "Python",
        "threads",
        "reference, sdpa",
        "cpu kernels",
        *(f"{name}, {dtype} on the CPU: " for name in OPERATIONS for dtype in DTYPES),
        "gem_fast",
        "torch",
        "open_clip_torch",
    ):
        assert expected in done.stdout


def test_info_says_what_a_gpu_would_run(monkeypatch):
    """A fake GPU: its tensors, and what the driver would say of it."""
    properties = SimpleNamespace(name="H100", major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.version, "hip", None)
    for name, answer in {"device_count": 1, "get_device_name": "H100", "is_initialized": True}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    triton_host._asked.cache_clear()
    with FakeTensorMode():
        text = info_text()
        for expected in (
            "self_self_attention, bfloat16 on cuda:0: triton",
            "self_self_attention, float32 on cuda:0: sdpa",
            "triton serves by name only (float32)",
            "cpu can't serve: it runs on the CPU, and qkv is on cuda",
            "query_key_attention, float16 on cuda:0: sdpa",
            "layer_norm_and_temperature, float32 on cuda:0: triton",
            "decode_labels, bfloat16 on cuda:0: triton",
            "decode_heatmaps, float32 on cuda:0: triton",
        ):
            assert expected in text
        properties.minor = 1  # an architecture that nothing was compiled for
        triton_host._asked.cache_clear()
        text = info_text()
        assert "self_self_attention, bfloat16 on cuda:0: sdpa" in text
        assert "decode_labels, float32 on cuda:0: sdpa" in text
        assert "triton serves by name only" in text
        assert "triton serves by name only (" not in text  # in every type
        monkeypatch.setenv("GEM_FAST_BACKEND", "triton")
        text = info_text()
        assert "self_self_attention, bfloat16 on cuda:0: triton" in text
        reason = "self_self_attention: the backend 'triton' can't serve: qkv is on cpu"
        assert f"self_self_attention, float32 on the CPU: none, {reason}" in text
        assert "query_key_attention, float32 on the CPU: sdpa" in text
    triton_host._asked.cache_clear()


def info_text():
    done = invoke("info")
    assert done.exit_code == 0
    return " ".join(done.stdout.split())


def test_info_says_why_the_native_kernel_is_missing(monkeypatch):
    monkeypatch.setattr("gem_fast.kernels.cpu_library._MISSING", "no compiler")
    done = invoke("info")
    assert "self_self_attention, bfloat16 on the CPU: sdpa" in done.stdout
    assert "decode_labels, float32 on the CPU: sdpa" in done.stdout
    assert "none: no compiler" in done.stdout
    assert "cpu can't serve: no compiler" in done.stdout


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda parts: " ".join(parts) or "all")
def test_help(command):
    done = invoke(*command, "--help")
    assert done.exit_code == 0
    text = plain(done.stdout)
    assert "Usage: " in text
    assert " . " not in text  # square brackets in a help text are taken for markup, and vanish
    for expected in {
        (): COMMANDS,
        ("segment",): ("--prompts-file", "--resume", "130 if interrupted", "bf16", "default: the model's"),
    }.get(command, ()):
        assert expected in text
