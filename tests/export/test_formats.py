"""`gem-fast export --format`: what each format writes and says, and how it fails."""

import re

import pytest

from tests.command_line import invoke, plain


@pytest.fixture
def run(tmp_path):
    """`gem-fast export` of gem-tiny at 32×32 into tmp_path/out."""

    def run(*arguments):
        command = ["export", "--out", str(tmp_path / "out"), "--gem-blocks", "1", "--size", "32", "--no-check"]
        done = invoke(*command, *arguments)
        return done, re.sub(r"\s+", " ", plain(done.output))

    return run


def test_tensorrt(run, tmp_path):
    done, told = run("--format", "tensorrt", "--attention", "plugin", "--dtype", "fp16", "--max-batch", "4")
    assert done.exit_code == 0, told
    assert (tmp_path / "out" / "image_encoder.onnx").exists()
    assert '"most": 4' in (tmp_path / "out" / "tensorrt.json").read_text()
    if "no engine was built" in told:
        assert "pip install tensorrt" in told
        assert "python -m gem_fast.export.tensorrt . image_encoder" in told
        assert "trtexec --onnx=text_encoder.onnx" in told


def test_triton_server(run, tmp_path):
    done, told = run("--format", "triton-server", "--max-batch", "4", "--instances", "3", "--queue-delay", "0")
    assert done.exit_code == 0, told
    assert f"tritonserver --model-repository={tmp_path / 'out' / 'models'}" in told
    config = (tmp_path / "out" / "models" / "gem_image_encoder" / "config.pbtxt").read_text()
    assert "max_batch_size: 4" in config
    assert "count: 3" in config
    assert "max_queue_delay_microseconds: 0" in config


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--format", "tensorrt", "--attention", "ort"],
            "attention for tensorrt must be one of onnx, plugin, portable",
        ),
        (["--format", "triton-server", "--attention", "plugin"], "plugin runs in TensorRT only"),
        (["--format", "pt2", "--original"], "the format pt2 has sizes and a dtype"),
        (
            ["--format", "onnx", "--device", "cuda"],
            "device is for the formats pt2 and exported-program; onnx needs",
        ),
        (["--format", "triton-server", "--device", "cuda"], "exported-program; triton-server needs none"),
        (["--format", "tensorrt", "--device", "cuda"], "exported-program; tensorrt needs none"),
        (["--format", "onnx", "--attention", "plugin"], "plugin runs in TensorRT only"),
        (["--format", "pt2", "--attention", "onnx"], "the format pt2 has torch's own attention; leave out attention"),
    ],
)
def test_what_does_not_fit(run, tmp_path, arguments, told):
    done, output = run(*arguments)
    assert done.exit_code == 2
    assert told in output
    assert not any(tmp_path.iterdir())
