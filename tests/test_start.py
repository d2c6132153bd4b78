"""What starting imports: little beside torch, and where names and configs are enough not even that."""

import json
import subprocess
import sys

import pytest
import torch
from gem_fast.kernels.triton_host import constant
from safetensors.torch import save_file

from gem_fast.demo import SAMPLES
from gem_fast.towers.configs import find_config
from gem_fast.towers.shapes import text_shapes, vision_shapes
from gem_fast.towers.text_config import text_config
from gem_fast.towers.untrained import untrained

_COMMAND = "import sys; sys.argv = {}; from gem_fast.cli import main\ntry: main()\nexcept SystemExit: pass\n"
_TELL = "import sys; print(' '.join({} & sys.modules.keys()), file=sys.stderr)"
# Each takes as long to import as half of torch, or longer.
SLOW = {
    "open_clip",
    "torchvision",
    "timm",
    "torch._dynamo",
    "sympy",
    "scipy",
    "transformers",
    "huggingface_hub",
    "onnx",
}
if torch.__version__ < (2, 10):  # to which an operator of ours is one that takes SymPy
    SLOW.remove("sympy")


def imported(code, names):
    done = subprocess.run(
        [sys.executable, "-c", code + _TELL.format(names)], capture_output=True, text=True, check=True
    )
    return done.stderr


def test_the_embedded_model(tmp_path):
    code = f"""
import gem_fast
model = gem_fast.load("gem-tiny")
model.segment({str(SAMPLES / "cat_umbrella.png")!r}, ["cat", "umbrella"]).save({str(tmp_path)!r})
"""
    assert imported(code, SLOW | {"ftfy", "regex", "tokenizers", "triton"}) == "\n"


def test_a_local_checkpoint(tmp_path):
    model_cfg = find_config("ViT-S-32-alt").model_cfg
    shapes = {f"visual.{name}": shape for name, shape in vision_shapes(model_cfg).items()}
    state = untrained(shapes | text_shapes(text_config(model_cfg)))
    save_file(state, tmp_path / "w.safetensors")
    code = f"""
import gem_fast
gem_fast.load("ViT-S-32-alt", weights={str(tmp_path / "w.safetensors")!r}).encode_text(["cat", "çà"])
"""
    assert imported(code, SLOW) == "\n"


@pytest.mark.parametrize(
    "command", [["models"], ["models", "ViT-B-16"], ["models", "gem-tiny"], ["--help"]], ids=" ".join
)
def test_commands_that_compute_nothing(command):
    code = _COMMAND.format(json.dumps(["gem-fast", *command]))
    assert imported(code, SLOW | {"torch"}) == "\n"


def test_info():
    assert imported(_COMMAND.format(["gem-fast", "info"]), SLOW) == "\n"


def test_what_dynamo_takes_for_constant_is_marked_as_torch_marks_it():
    """Without importing Dynamo, which torch's own decorator does."""

    def ask():
        pass

    torch.compiler.assume_constant_result(ask)
    assert vars(ask) == vars(constant(lambda: None))
