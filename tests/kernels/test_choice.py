"""Which backend is taken where, without the GPU: fake tensors on one, and the driver's answers replaced."""

from typing import NamedTuple

import pytest
import torch
from gem_fast.bench.gpu_report import ARCHITECTURES
from gem_fast.kernels import decode_heatmaps, decode_labels, layer_norm_and_temperature, self_self_attention
from gem_fast.kernels.attention import backends, choose_backend, registry
from gem_fast.kernels.choice import BACKENDS, asked_backend, takes
from gem_fast.kernels.decoding import find_decoder
from gem_fast.kernels.triton_host import COMPILED
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from gem_fast.options import GemOptions
from gem_fast.towers.vit import GemVisionTransformer, VisionConfig

LOW = (torch.float16, torch.bfloat16)


@pytest.fixture
def gpu(monkeypatch):
    """A function that makes `cuda` tensors, fake ones, lie on a GPU of a compute capability."""
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)

    def make(major, minor):
        properties = Properties(major, minor)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)

    make(9, 0)
    with FakeTensorMode():
        yield make


class Properties(NamedTuple):
    """What is read of a GPU's properties, in a type that torch.compile folds as it does the real ones."""

    major: int
    minor: int


class Operations(TorchDispatchMode):
    """Counts the operations of this project that are called."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        if operation.namespace == "gem_fast":
            name = operation.name().removeprefix("gem_fast::")
            self.counts[name] = self.counts.get(name, 0) + 1
        return operation(*arguments, **(options or {}))


def packed(dtype=torch.float16, D=64, device="cuda:0"):
    return torch.empty(2, 785, 3, 12, D, dtype=dtype, device=device)


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)], ids=str)
@pytest.mark.parametrize("dtype", LOW, ids=["fp16", "bf16"])
@pytest.mark.parametrize("D", [32, 64, 80, 88, 96, 104, 128])
def test_every_tower_goes_to_triton_on_every_gpu_that_was_compiled_for(gpu, capability, dtype, D):
    gpu(*capability)
    assert choose_backend(packed(dtype, D)) == "triton"


@pytest.mark.parametrize("capability", [(7, 5), (11, 0), (12, 1)], ids=str)
def test_other_gpus_are_left_to_sdpa_and_torch(gpu, capability):
    gpu(*capability)
    assert choose_backend(packed()) == "sdpa"
    assert find_decoder(torch.empty(3, 4, 4, device="cuda:0")) == "torch"


def test_an_architecture_that_was_not_compiled_for_is_served_by_name_only(gpu):
    gpu(12, 1)
    c = torch.empty(2, device="cuda:0")
    assert self_self_attention(packed(), c, backend="triton").shape == (2, 785, 768)
    gpu(7, 5)
    with pytest.raises(ValueError, match="without tensor cores on sm_75"):
        self_self_attention(packed(), c, backend="triton")


@pytest.mark.parametrize(
    ("qkv", "options", "chosen"),
    [
        ({"dtype": torch.float32}, {}, "sdpa"),
        ({"dtype": torch.float64}, {}, "reference"),
        ({"D": 136}, {}, "sdpa"),
        ({}, {"normalize": False}, "sdpa"),
        ({"device": "meta"}, {}, "sdpa"),
    ],
    ids=str,
)
def test_what_triton_is_not_taken_for(gpu, qkv, options, chosen):
    assert choose_backend(packed(**qkv), **options) == chosen


def test_float32_goes_to_triton_where_tf32_is_allowed(gpu, monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert choose_backend(packed(torch.float32)) == "triton"


def test_a_gpu_that_is_not_there_is_left_to_sdpa():
    """As in an export on fake tensors: asking the driver would raise."""
    with FakeTensorMode():
        assert choose_backend(packed()) == "sdpa"


def small_model(**options):
    """In float16 on the GPU; made there, as fake parameters can't be moved."""
    config = VisionConfig(width=128, layers=4, heads=2, mlp_width=256, patch_size=8, grid=(6, 6), embed_dim=32)
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("cuda:0"):
            return GemVisionTransformer(config, GemOptions(gem_blocks=3, **options))
    finally:
        torch.set_default_dtype(torch.float32)


def operations_of(call):
    with Operations() as seen:
        call()
    return seen.counts


def test_the_engine_runs_its_blocks_on_triton(gpu):
    model = small_model()
    pixels = torch.empty(2, 3, 48, 48, dtype=torch.float16, device="cuda:0")
    seen = operations_of(lambda: model(pixels))
    assert seen == {"layer_norm_and_norms_triton": 3, "self_self_attention_triton": 3}
    for strict in (False, True):
        code = torch.export.export(model, (pixels,), strict=strict).graph_module.code
        assert code.count("ops.gem_fast.self_self_attention_triton") == 3
        assert code.count("ops.gem_fast.layer_norm_and_norms_triton") == 3


def test_a_fixed_temperature_needs_no_norms(gpu):
    model = small_model(inverse_temperature=3.0)
    pixels = torch.empty(2, 3, 48, 48, dtype=torch.float16, device="cuda:0")
    assert operations_of(lambda: model(pixels)) == {"self_self_attention_triton": 3}


@pytest.mark.parametrize("by", ["argument", "environment"])
@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_another_backend_by_name_leaves_plain_torch(gpu, monkeypatch, by, backend):
    if by == "environment":
        monkeypatch.setenv("GEM_FAST_BACKEND", backend)
    asked = backend if by == "argument" else None
    model, scores = small_model(backend=asked), torch.empty(3, 4, 4, device="cuda:0")
    pixels = torch.empty(2, 3, 48, 48, dtype=torch.float16, device="cuda:0")

    def everything():
        model(pixels)
        decode_labels(scores, (9, 9), backend=asked)
        decode_heatmaps(scores, (9, 9), backend=asked)

    assert operations_of(everything) == {}
    if asked:
        assert "gem_fast" not in torch.export.export(model, (pixels,)).graph_module.code


def test_decoding_goes_to_triton(gpu):
    scores = torch.empty(3, 4, 5, device="cuda:0")
    assert operations_of(lambda: decode_labels(scores, (8, 9))) == {"decode_labels_triton": 1}
    assert operations_of(lambda: decode_heatmaps(scores, (8, 9))) == {"decode_heatmaps_triton": 1}
    labels, confidence = decode_labels(scores, (8, 9))
    assert (labels.shape, labels.dtype, confidence.dtype) == ((8, 9), torch.int32, torch.float32)
    assert decode_heatmaps(scores.half(), (8, 9)).dtype == torch.float16
    assert find_decoder(scores.double()) == "torch"


def test_triton_by_name_fails_loudly_on_the_cpu(monkeypatch):
    x, scores = torch.zeros(1, 4, 8), torch.zeros(2, 3, 3)
    calls = (
        lambda backend: self_self_attention(torch.zeros(1, 4, 3, 1, 8), torch.ones(1), backend=backend),
        lambda backend: layer_norm_and_temperature(x, torch.ones(8), torch.ones(8), 1e-5, 8, backend=backend),
        lambda backend: decode_labels(scores, (4, 4), backend=backend),
        lambda backend: decode_heatmaps(scores, (4, 4), backend=backend),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"'triton' can't serve: .*is on cpu"):
            call("triton")
        with pytest.raises(ValueError, match=r"'magic'; the backends are reference, sdpa"):
            call("magic")
        monkeypatch.setenv("GEM_FAST_BACKEND", "triton")
        with pytest.raises(ValueError, match=r"'triton' can't serve: .*is on cpu"):
            call(None)
        monkeypatch.delenv("GEM_FAST_BACKEND")
        call(None)


def test_the_rule_of_taking_a_backend(monkeypatch):
    assert takes("triton", None, None, pays=True)
    assert not takes("triton", None, None, pays=False)
    assert not takes("triton", None, "a reason", pays=True)
    assert takes("triton", "triton", None, pays=False)
    assert not takes("triton", "sdpa", None, pays=True)
    monkeypatch.setenv("GEM_FAST_BACKEND", "sdpa")
    assert asked_backend(None) == "sdpa"
    assert asked_backend("triton") == "triton"
    assert not takes("triton", None, None, pays=True)


def test_every_name_has_a_backend():
    assert tuple(registry._BACKENDS) == BACKENDS == backends()


def test_the_report_compiles_what_is_taken_without_being_asked_for():
    assert set(COMPILED) == set(ARCHITECTURES)
