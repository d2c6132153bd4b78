"""Memory that loading takes: little more than the model, whatever kind of file it is in."""

import gc
import os

import pytest
import torch

import gem_fast
from tests.towers.clip_files import (
    CONFIG,
    TINY,
    hugging_face_state,
    make_clip,
    save_state,
    write_hugging_face,
    write_open_clip,
)

# 152 MB in one tensor, of which no second copy may be made, nor the file stay in memory.
WIDE = TINY | {"text_cfg": TINY["text_cfg"] | {"width": 768, "heads": 12}}
TEXT = CONFIG["text_config"] | {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}


def status(name):
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(name)).split()[1]) * 1024


@pytest.fixture(scope="module")
def clip():
    return make_clip(WIDE)


needs_peak = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak can't be reset here")


def load_measured(folder, **arguments):
    """The model, the bytes of its weights, and those that loading took at its peak."""
    gem_fast.load("gem-tiny", **arguments)  # what comes with the first model
    gc.collect()
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    model = gem_fast.load(str(folder), **arguments)
    taken = status("VmHWM") - before
    parameters = [*model.vision.parameters(), *model.text.tower.parameters()]
    return model, sum(each.numel() * each.element_size() for each in parameters), taken


@needs_peak
@pytest.mark.parametrize("kind", ["safetensors", "torch", "hugging-face"])
def test_little_more_than_the_model(tmp_path, clip, kind):
    folder = tmp_path / "model"
    if kind == "hugging-face":
        write_hugging_face(folder, hugging_face_state(clip), text_config=TEXT)
    else:
        write_open_clip(folder, clip, WIDE, weights=None)
        save_state(clip.state_dict(), folder / f"model.{'safetensors' if kind == 'safetensors' else 'pth'}")
    _, held, taken = load_measured(folder, gem_blocks=1)
    assert held > 200e6
    assert taken < 1.2 * held


@needs_peak
def test_an_image_tower_in_a_smaller_type_is_never_whole_in_float32(tmp_path):
    """And has the bits that rounding afterwards gives, here with LayerScale folded in before."""
    wide = {"width": 768, "layers": 4, "ls_init_value": 0.1}
    config = TINY | {"vision_cfg": TINY["vision_cfg"] | wide}
    write_open_clip(tmp_path, make_clip(config), config)
    model, held, taken = load_measured(tmp_path, gem_blocks=1, dtype="bfloat16")
    assert held > 65e6
    assert taken < 1.5 * held
    rounded = gem_fast.load(str(tmp_path), gem_blocks=1).vision.bfloat16().state_dict()
    assert all(torch.equal(value, rounded[name]) for name, value in model.vision.state_dict().items())
