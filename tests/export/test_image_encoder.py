"""The image encoder's graph under ONNX Runtime against torch: each attention, opset and type, options and sizes."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gem_fast.export.attention import make_layers
from gem_fast.export.builder import GraphBuilder
from gem_fast.export.checking import sample_images
from gem_fast.export.comparison import label_share, relative_error
from gem_fast.export.export_options import ATTENTIONS, OPSETS
from gem_fast.export.image_encoder import write_image_encoder
from gem_fast.export.pixels import write_preprocessing
from gem_fast.export.plain import plain_torch

import gem_fast
from gem_fast.preprocess import resized_by_torch, to_pixels
from gem_fast.runtime.agreement import MARGIN
from tests.export.checked import require_runtime

# Each at the first and the last opset that it is written in; those between are in `test_every_export.py`.
WAYS = [(a, o) for a in ("portable", "ort", "onnx") for o in (max(OPSETS[0], ATTENTIONS[a]), OPSETS[-1])]


@pytest.fixture(scope="module")
def tiny():
    return gem_fast.load("gem-tiny")


@pytest.fixture(scope="module")
def samples(tiny):
    """The package's first eight sample images as pixels of 64×48."""
    return torch.stack([to_pixels(image, (64, 48), tiny.mean, tiny.std) for image in sample_images()])


def open_encoder(model, size=None, original=False, opset=18, feature_surgery=False, **layers):
    """A function from pixels to the outputs of the image encoder's graph by name, through ONNX Runtime."""
    require_runtime(opset, layers.get("attention"), layers.get("dtype"))
    graph = GraphBuilder(opset)
    beside = {"original": original, "feature_surgery": feature_surgery}
    write_image_encoder(make_layers(graph, **layers), model.vision, size, **beside)
    proto = graph.model("image_encoder", {})
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return lambda pixels: dict(zip(names, session.run(None, {"pixels": pixels.numpy()}), strict=True))


def pixels(B, H, W):
    return torch.randn(B, 3, H, W, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("attention", "opset"), WAYS)
def test_every_attention_and_opset_agrees_with_torch(tiny, samples, attention, opset):
    """Features and labels of 1, 3 and 8 images from one graph, and noise."""
    encode = open_encoder(tiny, (64, 48), True, opset=opset, attention=attention)
    share = label_share(tiny.encode_text(["cat", "dog", "car", "tree", "apple"]), (64, 48))
    for batch in (samples[:1], samples[:3], samples, pixels(3, 64, 48)):
        ours, truth = encode(batch), tiny.features(batch, original=True)
        assert ours["patch_features"].dtype == np.float32
        assert relative_error(ours["patch_features"], truth.patches) <= 2e-6
        assert relative_error(ours["original_features"], truth.original_patches) <= 2e-6
        found = torch.from_numpy(ours["patch_features"])
        assert share(found, truth.patches, 0.0)[0] >= 0.9999
        assert share(found.flip(1), truth.patches, 0.0)[0] < 0.9


@pytest.mark.parametrize(("attention", "opset"), WAYS)
def test_half_precision_loses_what_torch_loses_in_it(tiny, samples, attention, opset):
    ours = open_encoder(tiny, (64, 48), True, opset=opset, attention=attention, dtype="fp16")(samples[:3])
    truth = tiny.features(samples[:3], original=True)
    with torch.inference_mode():
        plain = plain_torch(tiny.vision, "fp16")(samples[:3], original=True)
    for result, expected, rounded in (
        (ours["patch_features"], truth.patches, plain.patches),
        (ours["original_features"], truth.original_patches, plain.original_patches),
    ):
        assert relative_error(result, expected) <= MARGIN * relative_error(rounded, expected)


@pytest.mark.parametrize("attention", ["portable", "ort", "onnx"])
@pytest.mark.parametrize(
    "options",
    [
        {"inverse_temperature": None},
        {"iterations": 0, "projections": "v", "normalize": False, "inverse_temperature": 0.125},
        {"iterations": 2, "projections": "qk", "gem_blocks": 2},
        {"projections": "kv"},
        {"projections": "vq"},
    ],
    ids=str,
)
def test_options_of_gem(attention, options):
    model = gem_fast.load("gem-tiny", **options)
    image = pixels(3, 40, 64)
    ours = open_encoder(model, (40, 64), opset=23, attention=attention)(image)
    assert relative_error(ours["patch_features"], model.features(image)) <= 2e-6


def test_another_tower(small_model):
    """Heads and patches of another shape, with the paper's adaptive temperature."""
    image = pixels(2, 96, 64)
    ours = open_encoder(small_model, (96, 64), attention="ort")(image)
    assert relative_error(ours["patch_features"], small_model.features(image)) <= 2e-6


@pytest.mark.parametrize("attention", ["portable", "ort"])
def test_dynamic_size_resamples_positions_as_torch_does(tiny, attention):
    # Not one patch wide and several high: there torch's own antialiased resampling is wrong.
    encode = open_encoder(tiny, attention=attention)
    for batch, height, width in [(1, 64, 64), (3, 40, 56), (8, 8, 120), (8, 120, 16), (1, 8, 8), (1, 200, 136)]:
        image = pixels(batch, height, width)
        ours = encode(image)
        assert relative_error(ours["patch_features"], tiny.features(image)) <= 2e-6


def test_int8_loses_what_torch_loses_in_it(tiny, samples):
    ours = open_encoder(tiny, (64, 48), attention="ort", quantize="int8")(samples)
    with torch.inference_mode():
        plain = plain_torch(tiny.vision, "int8")(samples).patches
    truth = tiny.features(samples)
    assert 1e-4 < relative_error(ours["patch_features"], truth) <= MARGIN * relative_error(plain, truth) < 0.05
    assert relative_error(ours["patch_features"], plain) < relative_error(plain, truth)


SHAPES = [(300, 451), (480, 640), (20, 33), (64, 48), (64, 100), (128, 96), (1, 1), (7, 900), (1100, 30), (3000, 49)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["noise", "steps"])
def test_preprocessing_is_the_engines_byte_for_byte(shape, kind):
    """Steps of 0 and 255 in broad fields are what overshoots and falls half-way."""
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    if kind == "steps":
        picture = np.where(np.add.outer(*(np.arange(n) // 5 for n in shape))[..., None] % 2, 255, picture // 250 * 255)
        picture = picture.astype(np.uint8)
    graph = GraphBuilder(18)
    value = write_preprocessing(graph, (64, 48), (0.0, 0.0, 0.0), (1 / 255,) * 3)
    graph.output("values", value, onnx.TensorProto.FLOAT, ["batch", 3, 64, 48])
    session = onnxruntime.InferenceSession(graph.model("preprocess", {}).SerializeToString())
    ours = session.run(None, {"image": picture[None]})[0][0].transpose(1, 2, 0)
    assert np.array_equal(ours.round(), resized_by_torch(picture, (64, 48)))
