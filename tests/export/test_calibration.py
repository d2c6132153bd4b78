"""Static int8: ranges from a folder of images, and a graph that rounds by them."""

import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from gem_fast.export import ExportError, ExportOptions, calibration, checked_session, export_onnx
from gem_fast.export.calibration import calibrated
from gem_fast.export.plain import plain_torch
from gem_fast.export.segmenter_export import export_segmenter

import gem_fast
from gem_fast.demo import SAMPLES
from gem_fast.images import read_image
from gem_fast.preprocess import normalised
from gem_fast.runtime import GemRuntime
from tests.command_line import invoke
from tests.export.checked import packed

SIZE = (64, 48)


@pytest.fixture(scope="module")
def model():
    return gem_fast.load("gem-tiny", gem_blocks=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight images and something else."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted(SAMPLES.glob("*.[pj][np]g"))[:8]:
        shutil.copy(path, folder)
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def exported(model, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("static") / "out"
    return folder, export_onnx(model, folder, ExportOptions(sizes=(SIZE,), calibrate=photos))


def test_ranges_are_what_the_layers_take(model, photos):
    """By hooks on torch's layers, over all images and both paths."""
    seen = {}

    def note(name):
        return lambda _, inputs: seen.setdefault(name, []).append((inputs[0].min().item(), inputs[0].max().item()))

    blocks = plain_torch(model.vision, "float32").blocks
    hooked = plain_torch(model.vision, "float32")
    for name, layer in hooked.named_modules():
        if name.startswith("blocks.") and isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(note(name))
    for path in sorted(photos.glob("*.[pj][np]g")):
        pixels = normalised(model.resized(read_image(path), SIZE)[None], model.mean, model.std)
        hooked(torch.from_numpy(pixels), original=True)
    ranges = calibrated(model, ExportOptions(sizes=(SIZE,), calibrate=photos, original=True)).ranges
    assert set(ranges) == set(seen)
    assert len(ranges) == 4 * len(blocks)
    for name, (low, high) in ranges.items():
        lows, highs = zip(*seen[name], strict=True)
        np.testing.assert_allclose((low, high), (min(0, *lows), max(0, *highs)), rtol=1e-4, atol=1e-5)


def test_its_agreement_is_told_on_the_images_of_the_folder(exported):
    folder, manifest = exported
    assert manifest.export.quantize == "int8-static"
    rows = [row for row in manifest.check if row.output == "patch_features"]
    assert [(row.batch, row.input) for row in rows] == [(1, "calibration"), (8, "calibration")]
    assert all(1e-4 < row.relative < 0.05 and row.labels > 0.95 for row in rows)
    assert all(row.holds for row in manifest.check)
    kinds = [node.op_type for node in onnx.load(folder / "image_encoder.onnx").graph.node]
    assert 2 * kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") > 2 * 4 * 6  # inputs and weights
    assert "DynamicQuantizeLinear" not in kinds


def test_it_loses_what_torch_loses_by_the_same_ranges(model, photos, exported):
    folder, _ = exported
    ranges = calibrated(model, ExportOptions(sizes=(SIZE,), calibrate=photos)).ranges
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    inputs = torch.from_numpy(normalised(pixels, model.mean, model.std))
    plain, truth = plain_torch(model.vision, "int8-static", ranges)(inputs).patches, model.features(inputs)
    ours = torch.from_numpy(GemRuntime(folder, threads=1).patch_features(pixels, SIZE).numpy())
    dynamic = plain_torch(model.vision, "int8")(inputs).patches
    assert (ours - plain).norm() < min((plain - truth).norm(), (ours - dynamic).norm())


def test_a_segmenter_too(model, photos, tmp_path):
    manifest = export_segmenter(model, tmp_path / "out", model.query(["cat", "dog"]), ExportOptions(calibrate=photos))
    assert all(row.holds for row in manifest.check)
    assert min(row.labels for row in manifest.check if row.labels is not None) > 0.95
    assert packed(model) == packed(gem_fast.load("gem-tiny"))


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "few", "broken"])
def test_a_folder_that_does_not_do(photos, tmp_path, kind):
    folder = tmp_path / "images"
    told = {
        "missing": f"calibrate must be a folder of images like those to come, and {folder} is none",
        "file": f"calibrate must be a folder of images like those to come, and {folder} is none",
        "empty": f"{folder} has 0 images; calibrate by 8 or more",
        "few": f"{folder} has 7 images; calibrate by 8 or more",
        "broken": "cat_umbrella.png",
    }[kind]
    if kind == "file":
        folder.write_bytes(b"")
    elif kind == "empty":
        folder.mkdir()
    elif kind != "missing":
        shutil.copytree(photos, folder)
        broken = folder / "cat_umbrella.png"
        broken.unlink() if kind == "few" else broken.write_bytes(broken.read_bytes()[:200])
    done = invoke("export", "--calibrate", folder, "--gem-blocks", 1, "--size", 32, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert told in done.stderr.replace("\n", "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "tensorrt"], "calibrate rounds to uint8, which TensorRT does not take"),
        (["--format", "exported-program"], "has sizes and a dtype; the other options are for graphs"),
        (["--dtype", "float16"], "int8 goes with dtype float32, got float16"),
    ],
    ids=str,
)
def test_what_it_does_not_go_with(photos, tmp_path, arguments, told):
    done = invoke("export", "--calibrate", photos, *arguments, "--size", 32, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert told in done.stderr.replace("\n", "")


def test_its_options_may_be_copied(photos):
    with pytest.raises(ExportError, match="quantize must be int8 or left out, got 'int8-static'"):
        ExportOptions(quantize="int8-static")
    assert ExportOptions(calibrate=photos).integers == "int8-static"
    assert ExportOptions(quantize="int8", calibrate=photos).integers == "int8-static"
    assert ExportOptions(quantize="int8").integers == "int8"


def test_ranges_hold_zero_and_those_of_all_images_and_sizes(model, photos, monkeypatch):
    """Of so many images of a folder, some of which the export is compared on."""
    asked = []

    def observed(model, options, size, images):
        asked.append((size, len(images)))
        yield from [("a", (1.0, 2.0)), ("a", (-3.0, 1.0)), ("b", (1.0, 5.0 if size == SIZE else 4.0))]

    monkeypatch.setattr(calibration, "_observed", observed)
    monkeypatch.setattr(calibration, "LEAST", 2)
    monkeypatch.setattr(calibration, "_MOST", 3)
    monkeypatch.setattr(calibration, "_SHOWN", 2)
    found = calibrated(model, ExportOptions(sizes=(SIZE, (32, 32)), calibrate=photos))
    assert found.ranges == {"a": (-3.0, 2.0), "b": (0.0, 5.0)}
    assert (asked, len(found.images)) == ([(SIZE, 3), ((32, 32), 3)], 2)


@pytest.mark.parametrize("ends", [(0.0, float("inf")), (float("nan"), 1.0)])
def test_ranges_without_end_are_refused(model, photos, monkeypatch, ends):
    monkeypatch.setattr(calibration, "_write", lambda *_: ["a"])
    monkeypatch.setattr(checked_session, "open_session", lambda path: SimpleNamespace(run=lambda *_: [ends]))
    with pytest.raises(ExportError, match="the model gives no finite numbers for an image of"):
        calibrated(model, ExportOptions(sizes=(SIZE,), calibrate=photos))
