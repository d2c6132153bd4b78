"""Memory that loading takes: little more than the model, whatever kind of file it is in."""

import gc
import os

import pytest

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


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak can't be reset here")
@pytest.mark.parametrize("kind", ["safetensors", "torch", "hugging-face"])
def test_little_more_than_the_model(tmp_path, clip, kind):
    folder = tmp_path / "model"
    if kind == "hugging-face":
        write_hugging_face(folder, hugging_face_state(clip), text_config=TEXT)
    else:
        write_open_clip(folder, clip, WIDE, weights=None)
        save_state(clip.state_dict(), folder / f"model.{'safetensors' if kind == 'safetensors' else 'pth'}")
    gem_fast.load("gem-tiny")  # what comes with the first model
    gc.collect()
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    model = gem_fast.load(str(folder), gem_blocks=1)
    taken = status("VmHWM") - before
    towers = (model.vision, model.text.tower)
    held = sum(each.numel() * each.element_size() for tower in towers for each in tower.parameters())
    assert held > 200e6
    assert taken < 1.2 * held
