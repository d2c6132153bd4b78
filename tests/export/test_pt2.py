"""Packages of the image encoder, run back, compared with the engine and given wrong inputs."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from gem_fast.export import ExportError, ExportOptions, pt2
from gem_fast.export.exported_program import export_program
from gem_fast.export.plain import plain_torch
from gem_fast.export.program import at_size
from gem_fast.export.pt2 import export_pt2
from gem_fast.export.verdict import DisagreementError

import gem_fast
from gem_fast.model import GemModel
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


WRONG = {
    "permuted": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every other image": lambda x: torch.cat([x, x])[::2],
    "every other column": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "one channel thrice": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "one image twice": lambda x: x[:1].expand(2, -1, -1, -1),
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "float64": lambda x: x.double(),
    "uint8": lambda x: x.byte(),
    "int64": lambda x: x.long(),
    "small": lambda x: x[..., :8, :8].contiguous(),
    "large": lambda x: torch.cat([x, x], 3),
    "turned": lambda x: x.transpose(2, 3).contiguous(),
    "four channels": lambda x: x[:, [0, 1, 2, 0]].contiguous(),
    "no batch": lambda x: x[0],
    "a row": lambda x: x.flatten(),
    "a number": lambda x: x.sum(),
    "five dimensions": lambda x: x[..., None],
    "too many": lambda x: torch.zeros(1025, 3, *SIZE),
    "an array": lambda x: x.numpy(),
    "another device": lambda x: x.to("meta"),
}


@pytest.fixture(scope="module")
def compiled(model, tmp_path_factory):
    """The folder of a pt2 package."""
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("pt2") / "out"
    if torch.__version__ < (2, 13):
        with pytest.raises(ExportError, match=r"without a check of its inputs.* take torch 2\.13"):
            export_pt2(model, folder, ExportOptions(sizes=(SIZE,)))
        pytest.skip("this torch's packages don't check all of their inputs")
    export_pt2(model, folder, ExportOptions(sizes=(SIZE,)))
    return folder


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """The folder of a program of torch.export."""
    folder = tmp_path_factory.mktemp("program") / "out"
    export_program(model, folder, ExportOptions(sizes=(SIZE,)))
    return folder


@pytest.fixture(scope="module")
def encoders(compiled, saved):
    """A function of pixels for each format."""
    return {
        "pt2": torch._inductor.aoti_load_package(str(compiled / "image_encoder.pt2")),
        "exported-program": torch.export.load(saved / "image_encoder.pt2").module(),
    }


def test_feature_surgery_has_the_images_embedding_as_a_second_output(model, tmp_path):
    surgical = replace(model, feature_surgery=True)
    manifest = export_program(surgical, tmp_path / "out", ExportOptions(sizes=(SIZE,)))
    assert read_manifest(tmp_path / "out").export.feature_surgery
    assert [row.output for row in manifest.check] == ["patch_features", "image_embedding"] * 2
    patches, images = torch.export.load(tmp_path / "out" / "image_encoder.pt2").module()(batch(3))
    truth = model.features(batch(3), original=True)
    assert off(patches, truth.patches) <= 2e-6
    assert off(images, truth.original_class) <= 2e-6


def batch(count):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(count))


def off(found, truth):
    return (found - truth).norm() / truth.norm()


@pytest.mark.parametrize(("format", "folder"), [("pt2", "compiled"), ("exported-program", "saved")])
def test_a_package_gives_the_engines_features(model, encoders, format, folder, request):
    folder = request.getfixturevalue(folder)
    manifest = read_manifest(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["image_encoder.pt2", "manifest.json"]
    assert manifest.export.format == format
    assert 0 < largest_error(manifest) <= 2e-6
    assert manifest.files["image_encoder.pt2"].size == (16, 24)
    verify_files(folder, manifest)
    for count in (1, 2, 5):
        assert off(encoders[format](batch(count)), model.features(batch(count))) <= 2e-6


@pytest.mark.parametrize("format", ["pt2", "exported-program"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_input_is_refused_or_served(model, encoders, format, wrong):
    """In this process, where no environment variable asks for it."""
    assert "AOTI_RUNTIME_CHECK_INPUTS" not in os.environ
    given = WRONG[wrong](batch(2))
    try:
        found = encoders[format](given)
    except Exception:  # torch's errors share no base: RuntimeError, AssertionError, TypeError
        return
    assert format == "exported-program", f"the package took {wrong}"
    assert off(found, model.features(given)) <= 2e-6


def test_pixels_that_start_within_a_buffer_are_served(model, encoders):
    pixels = batch(2)
    within = torch.cat([torch.zeros(1), pixels.flatten()])[1:].view_as(pixels)
    assert off(encoders["pt2"](within), model.features(pixels)) <= 2e-6


def test_a_package_that_takes_a_wrong_layout_is_not_kept(model, tmp_path):
    with pytest.raises(ExportError, match=r"compiled a\.pt2 without a check of its inputs.*exported-program"):
        pt2.check_refusal(lambda pixels: pixels, batch(2), tmp_path / "a.pt2")


def test_what_a_package_prints_of_wrong_inputs_is_not_shown(tmp_path, capfd):
    def refuse(_):
        os.write(2, b"Error: unmatched stride value")
        raise RuntimeError

    pt2.check_refusal(refuse, batch(2), tmp_path / "a.pt2")
    os.write(2, b"what follows is")
    assert capfd.readouterr().err == "what follows is"


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
        monkeypatch.setattr(pt2, "compile_package", lambda vision, path, *_: path.write_bytes(b"package"))
        monkeypatch.setattr(pt2, "check_compiler", lambda: None)
        opened = []

        def load(path, device_index):
            opened.append(device_index)
            return lambda pixels: factor * engine(pixels).patches

        monkeypatch.setattr(torch._inductor, "aoti_load_package", load)
        return opened

    return packaged


@pytest.mark.parametrize(("device", "index"), [("cpu", -1), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_package_runs_on_the_models_own_gpu(model, tmp_path, packaged, monkeypatch, device, index):
    """When it is tried with a wrong layout, and when it is compared."""
    compile_package, where = pt2.compile_package, torch.device(device)
    opened = packaged(1.0)
    for name in ("traced", "check_refusal"):
        monkeypatch.setattr(pt2, name, lambda *_: None)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", lambda *_, **__: None)
    monkeypatch.setattr(pt2, "example_pixels", lambda *_: SimpleNamespace(device=where))
    compile_package(model.vision, tmp_path / "image_encoder.pt2", SIZE)
    monkeypatch.setattr(GemModel, "device", where)
    export_pt2(model, tmp_path / "out", ExportOptions(sizes=(SIZE,)))
    assert opened == [index, index]


@pytest.mark.parametrize("factor", [1 + 3e-6, float("nan")])
def test_a_wrong_package_is_not_kept(model, tmp_path, packaged, factor):
    packaged(factor)
    with pytest.raises(DisagreementError, match=r"2 of 2 .* patch_features of image_encoder\.pt2"):
        export_pt2(model, tmp_path / "out", ExportOptions(sizes=(SIZE,)))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_a_package_for_feature_surgery_is_compared_in_both_outputs(model, tmp_path, packaged, monkeypatch, factor):
    packaged(1.0)

    def encode(pixels):
        features = model.features(pixels, original=True)
        return features.patches, factor * features.original_class

    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda *_, **__: encode)
    surgical, options = replace(model, feature_surgery=True), ExportOptions(sizes=(SIZE,))
    if factor == 1:
        assert export_pt2(surgical, tmp_path / "out", options).export.feature_surgery
        return
    with pytest.raises(DisagreementError, match=r"2 of 4 .* image_embedding of image_encoder\.pt2"):
        export_pt2(surgical, tmp_path / "out", options)
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
    with pytest.raises(ExportError, match="the format pt2 has sizes and a dtype"):
        export_pt2(model, tmp_path / "out", ExportOptions(**options))


def test_a_size_that_is_no_multiple_of_the_patch(model, tmp_path):
    with pytest.raises(ExportError, match="size 15x16"):
        export_pt2(model, tmp_path / "out", ExportOptions(sizes=((15, 16),)))
