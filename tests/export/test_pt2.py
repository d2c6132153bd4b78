"""AOTInductor packages of the image encoder, run back and compared with the engine."""

import shutil
from dataclasses import replace

import pytest
import torch
from gem_fast.export import ExportError, ExportOptions, pt2
from gem_fast.export.plain import plain_torch
from gem_fast.export.pt2 import at_size, export_pt2
from gem_fast.export.verdict import DisagreementError

import gem_fast
from gem_fast.runtime.folder import verify_files
from gem_fast.runtime.manifest import read_manifest
from tests.export.checked import largest_error

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
    assert 0 < largest_error(manifest) <= 2e-6
    assert manifest.files["image_encoder.pt2"].size == (16, 24)
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


@pytest.fixture
def packaged(model, monkeypatch):
    """As if packages were compiled and gave the engine's features in that type, times a factor."""

    def packaged(factor, dtype="fp32"):
        engine = plain_torch(model.vision, dtype)
        monkeypatch.setattr(pt2, "compile_package", lambda vision, path, size: path.write_bytes(b"package"))
        monkeypatch.setattr(pt2, "check_compiler", lambda: None)
        monkeypatch.setattr(
            torch._inductor, "aoti_load_package", lambda path: lambda pixels: factor * engine(pixels).patches
        )

    return packaged


@pytest.mark.parametrize("factor", [1 + 3e-6, float("nan")])
def test_a_wrong_package_is_not_kept(model, tmp_path, packaged, factor):
    packaged(factor)
    with pytest.raises(DisagreementError, match=r"2 of 2 .* patch_features of image_encoder\.pt2"):
        export_pt2(model, tmp_path / "out", ExportOptions(sizes=(SIZE,)))
    assert not any(tmp_path.iterdir())


def test_a_lower_type_may_lose_twice_what_torch_loses_in_it(model, tmp_path, packaged):
    packaged(1.0, "bf16")
    manifest = export_pt2(model, tmp_path / "out", ExportOptions(sizes=(SIZE,), dtype="bf16"))
    for row in manifest.check:
        assert row.relative == pytest.approx(row.bound / 2)
        assert 1e-4 < row.relative < 0.02
    packaged(1.05, "bf16")
    with pytest.raises(DisagreementError):
        export_pt2(model, tmp_path / "other", ExportOptions(sizes=(SIZE,), dtype="bf16"))


def test_one_package_for_each_size(model, tmp_path, packaged):
    packaged(1.0)
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
