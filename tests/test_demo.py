"""`gem-fast demo`: the sample images, and what the embedded model makes of them."""

import pytest
from PIL import Image

import gem_fast
from gem_fast.demo import SAMPLES, sample_prompts
from tests.command_line import invoke, plain


def test_writes_images_overlays_labels_and_heat_maps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("demo")
    assert done.exit_code == 0, done.output
    out = tmp_path / "demo_output"
    for name, words in sample_prompts().items():
        stem = name.partition(".")[0]
        assert (out / "images" / name).read_bytes() == (SAMPLES / name).read_bytes()
        size = Image.open(out / "images" / name).size
        assert Image.open(out / f"{stem}.labels.png").size == size
        for part in ("overlay", *words):
            assert Image.open(out / f"{stem}.{part}.png").width == size[0]
        assert f"demo_output/{stem}.overlay.png" in done.stdout
    again = invoke("demo")
    assert again.exit_code == 0, "a second time does no harm"


@pytest.mark.parametrize("inside", [False, True], ids=["a-file", "below-a-file"])
def test_a_file_is_no_folder(tmp_path, monkeypatch, inside):
    monkeypatch.setattr(gem_fast, "load", lambda *_: pytest.fail("the model was loaded"))
    (tmp_path / "out").write_text("mine")
    given = tmp_path / "out" / "sub" if inside else tmp_path / "out"
    done = invoke("demo", given)
    assert done.exit_code == 2
    assert str(given) in plain(done.stderr)
    assert "Traceback" not in done.output
    assert (tmp_path / "out").read_text() == "mine"
