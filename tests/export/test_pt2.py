"""AOTInductor packages of the image encoder, run back and compared with the engine."""

import shutil
from dataclasses import replace

import pytest
import torch
from gem_fast.export import ExportError, ExportOptions, pt2
from gem_fast.export.manifest import read_manifest, verify_files
from gem_fast.export.pt2 import at_size, export_pt2

import gem_fast

SIZE = (16, 24)


@pytest.fixture(scope="module")
def model():
    """The last two blocks of gem-tiny: a package of all seven takes thrice as long to compile."""
    whole = gem_fast.load("gem-tiny", gem_blocks=1)
    whole.vision.config = replace(whole.vision.config, layers=2)
    whole.vision.blocks = whole.vision.blocks[-2:]
    return whole


def test_a_package_gives_the_engines_features(model, tmp_path):
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler")
    manifest = export_pt2(model, tmp_path / "out", ExportOptions(sizes=(SIZE,)))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["image_encoder.pt2", "manifest.json"]
    assert 0 < manifest["check"]["patch_features"] <= 2e-6
    assert manifest["files"]["image_encoder.pt2"]["size"] == [16, 24]
    verify_files(tmp_path / "out", read_manifest(tmp_path / "out"))
    package = torch._inductor.aoti_load_package(str(tmp_path / "out" / "image_encoder.pt2"))
    for count in (1, 2, 5):
        pixels = torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(count))
        truth = model.features(pixels)
        assert (package(pixels) - truth).norm() / truth.norm() <= 2e-6


def test_a_model_for_one_size_computes_the_same(model):
    pixels = torch.randn(2, 3, *SIZE)
    fixed = at_size(model.vision, SIZE)
    truth = model.features(pixels)
    assert (fixed(pixels).patches - truth).norm() / truth.norm() <= 2e-6
    assert fixed.config.grid == (2, 3)
    assert model.vision.config.grid == (8, 8)  # the model itself is as it was
    assert model.vision.position_embedding.shape[0] == 65


def test_without_a_compiler_it_says_so(model, tmp_path):
    import torch._inductor.config

    elsewhere = torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")})
    with elsewhere, pytest.raises(ExportError, match=r"there is none \(no-such-compiler\); install g\+\+"):
        export_pt2(model, tmp_path / "out", ExportOptions(sizes=(SIZE,)))
    assert not any(tmp_path.iterdir())


def test_a_wrong_package_is_not_kept(model, tmp_path, monkeypatch):
    monkeypatch.setattr(pt2, "compile_package", lambda model, path, size: path.write_bytes(b"package"))
    monkeypatch.setattr(pt2, "check_compiler", lambda: None)
    for error in (3e-6, float("nan")):
        monkeypatch.setattr(pt2, "compare", lambda model, path, size, error=error: error)
        with pytest.raises(ExportError, match="differ from the engine's by"):
            export_pt2(model, tmp_path / "out", ExportOptions(sizes=(SIZE,)))
        assert not any(tmp_path.iterdir())


def test_one_package_for_each_size(model, tmp_path, monkeypatch):
    monkeypatch.setattr(pt2, "compile_package", lambda model, path, size: path.write_bytes(b"package"))
    monkeypatch.setattr(pt2, "check_compiler", lambda: None)
    monkeypatch.setattr(pt2, "compare", lambda model, path, size: 1e-7)
    export_pt2(model, tmp_path / "out", ExportOptions(sizes=(SIZE, (16, 16))))
    names = {"image_encoder_16x24.pt2", "image_encoder_16x16.pt2", "manifest.json"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names


@pytest.mark.parametrize("options", [{"dynamic_size": True}, {"original": True}])
def test_options_of_graphs_are_refused(model, tmp_path, options):
    with pytest.raises(ExportError, match="a pt2 package has sizes and a dtype"):
        export_pt2(model, tmp_path / "out", ExportOptions(**options))


def test_a_size_that_is_no_multiple_of_the_patch(model, tmp_path):
    with pytest.raises(ExportError, match="size 15x16"):
        export_pt2(model, tmp_path / "out", ExportOptions(sizes=((15, 16),)))
