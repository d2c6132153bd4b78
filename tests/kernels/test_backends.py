"""Which backend is taken where, without the GPU: fake tensors on one, and the driver's answers replaced."""

import re
import sys
from importlib.metadata import PackageNotFoundError
from typing import NamedTuple
from unittest import mock

import pytest
import torch
from gem_fast.kernels import (
    decode_heatmaps,
    decode_labels,
    layer_norm_and_temperature,
    query_key_attention,
    quick_gelu,
    self_self_attention,
    triton_host,
    unit_rows,
)
from gem_fast.kernels.attention import query_key, self_self
from gem_fast.kernels.backends import OPERATIONS, Backend, Operation, check_name, names
from gem_fast.kernels.triton_host import COMPILED
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from gem_fast.options import GemOptions
from gem_fast.towers.vision_config import VisionConfig
from gem_fast.towers.vit import GemVisionTransformer
from tools.gpu_report import ARCHITECTURES

LOW = (torch.float16, torch.bfloat16)
layer_norm = sys.modules["gem_fast.kernels.layer_norm.layer_norm"]


@pytest.fixture
def gpu(monkeypatch):
    """A function that makes `cuda` tensors, fake ones, lie on a GPU of a compute capability."""
    pytest.importorskip("triton")
    if torch.__version__ < (2, 10) and not torch.cuda.is_available():
        pytest.skip("fake tensors of this torch ask for a driver")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)

    def make(major, minor):
        properties = Properties(major, minor)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        triton_host._asked.cache_clear()

    make(9, 0)
    with FakeTensorMode():
        yield make
    triton_host._asked.cache_clear()


class Properties(NamedTuple):
    """What is read of a GPU's properties, in a type that torch.compile folds as it does the real ones."""

    major: int
    minor: int
    name: str = "a GPU that is not there"


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


def chosen(operation, *arguments, asked=None):
    """The name of the backend that an operation takes."""
    return OPERATIONS[operation].choose(asked, *arguments).name


def attends(qkv, iterations=1, projections=(0, 1, 2), normalize=True):
    """What self-self attention takes by itself."""
    c = torch.empty(len(qkv), device=qkv.device)
    return chosen("self_self_attention", qkv, c, iterations, projections, normalize)


def packed(dtype=torch.float16, D=64, device="cuda:0"):
    return torch.empty(2, 785, 3, 12, D, dtype=dtype, device=device)


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)], ids=str)
@pytest.mark.parametrize("dtype", LOW, ids=["fp16", "bf16"])
@pytest.mark.parametrize("D", [32, 64, 80, 88, 96, 104, 128])
def test_every_tower_goes_to_triton_on_every_gpu_that_was_compiled_for(gpu, capability, dtype, D):
    gpu(*capability)
    assert attends(packed(dtype, D)) == "triton"


@pytest.mark.parametrize("dtype", LOW, ids=["fp16", "bf16"])
def test_rows_of_any_norm_and_pairs_go_to_triton_in_16_bits(gpu, dtype):
    """As measured; with the bias, for heads of up to 64 channels."""
    gpu(9, 0)
    scale, factors = torch.empty(2, device="cuda:0"), (torch.empty(28, 785), torch.empty(28, 785))
    near = tuple(each.to("cuda:0") for each in factors)
    assert attends(packed(dtype), normalize=False) == "triton"
    for D, bias, taken in ((80, None, "triton"), (64, near, "triton"), (80, near, "sdpa")):
        assert chosen("pair_attention", packed(dtype, D), scale, ((1, 1),), False, bias) == taken
    assert chosen("pair_attention", packed(torch.float32), scale, ((1, 1),), False, None) == "sdpa"


@pytest.mark.parametrize("capability", [(7, 5), (11, 0), (12, 1)], ids=str)
def test_other_gpus_are_left_to_sdpa_and_torch(gpu, capability):
    gpu(*capability)
    scores, x, w = (torch.empty(shape, device="cuda:0") for shape in ((3, 4, 4), (1, 5, 8), (8,)))
    assert attends(packed()) == "sdpa"
    assert chosen("query_key_attention", packed()) == "sdpa"
    assert chosen("decode_labels", scores, (8, 8), 100.0, 0.0) == "sdpa"
    assert chosen("decode_heatmaps", scores, (8, 8)) == "sdpa"
    assert chosen("layer_norm_and_temperature", x, w, w, 1e-5, None, 4) == "sdpa"


def test_an_architecture_that_was_not_compiled_for_is_served_by_name_only(gpu):
    gpu(12, 1)
    c = torch.empty(2, device="cuda:0")
    assert self_self_attention(packed(), c, backend="triton").shape == (2, 785, 768)
    gpu(7, 5)
    with pytest.raises(ValueError, match="without tensor cores on sm_75"):
        self_self_attention(packed(), c, backend="triton")


@pytest.mark.parametrize(
    ("qkv", "options", "taken"),
    [
        ({"dtype": torch.float32}, {}, "sdpa"),
        ({"dtype": torch.float64}, {}, "reference"),
        ({"D": 136}, {}, "sdpa"),
        ({"dtype": torch.float32}, {"normalize": False}, "sdpa"),
        ({"device": "meta"}, {}, "sdpa"),
    ],
    ids=str,
)
def test_what_triton_is_not_taken_for(gpu, qkv, options, taken):
    assert attends(packed(**qkv), **options) == taken


@pytest.fixture
def switch():
    """A function that allows TF32, or forbids it, by torch's older switch or its newer one."""
    matmul = torch.backends.cuda.matmul
    newer = hasattr(matmul, "fp32_precision")

    def turn(by, allowed):
        if by == "newer" and not newer:
            pytest.skip("this torch has no newer switch")
        if by == "newer":
            matmul.fp32_precision = "tf32" if allowed else "ieee"
        else:
            torch.set_float32_matmul_precision("high" if allowed else "highest")

    yield turn
    torch.set_float32_matmul_precision("highest")
    if newer:
        matmul.fp32_precision = "none"


@pytest.mark.parametrize("by", ["older", "newer"])
def test_float32_goes_to_triton_where_tf32_is_allowed(gpu, switch, by):
    switch(by, True)
    assert attends(packed(torch.float32)) == "triton"
    for dtype in LOW:  # whatever the switch says
        assert attends(packed(dtype)) == "triton"
    switch(by, False)
    assert attends(packed(torch.float32)) == "sdpa"


@pytest.mark.parametrize(("allowed", "taken"), [(True, "self_self_attention_triton"), (False, "scaled_dot_product")])
@pytest.mark.parametrize("by", ["older", "newer"])
def test_the_choice_is_traced_without_a_graph_break(gpu, switch, by, allowed, taken):
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    switch(by, allowed)
    attend = torch.compile(lambda qkv: self_self_attention(qkv, 3.0), fullgraph=True, backend=keep)
    attend(packed(torch.float32))
    (graph,) = graphs
    assert taken in graph.code


class TestWhatTritonNeeds:
    """Where it is missing, plain torch serves, and the reason is told."""

    @pytest.fixture(autouse=True)
    def _looked_for_again(self):
        cached = triton_host.triton_version, triton_host._too_old, triton_host._missing_for_a_launch
        for found in cached:
            found.cache_clear()
        yield
        for found in cached:
            found.cache_clear()

    def refused(self, told):
        assert attends(packed()) == "sdpa"
        x, w, scores = (torch.empty(shape, device="cuda:0") for shape in ((1, 5, 8), (8,), (3, 4, 4)))
        assert chosen("layer_norm_and_temperature", x, w, w, 1e-5, None, 4) == "sdpa"
        assert chosen("decode_labels", scores, (8, 8), 100.0, 0.0) == "sdpa"
        with pytest.raises(ValueError, match=f"'triton' can't serve: .*{told}"):
            self_self_attention(packed(), 3.0, backend="triton")

    @pytest.mark.parametrize("found", ["3.0.0", "3.1.0", "3.2.0+git0d4682f0", "2.3.1"])
    def test_a_version_that_compiles_the_kernels(self, gpu, monkeypatch, found):
        monkeypatch.setattr(triton_host, "version", lambda package: found)
        self.refused(rf"triton {re.escape(found)} can't compile the kernels, which takes 3\.3")

    @pytest.mark.parametrize("found", ["3.3.0", "3.10.1", "4.0"])
    def test_newer_ones_serve(self, gpu, monkeypatch, found):
        monkeypatch.setattr(triton_host, "version", lambda package: found)
        assert attends(packed()) == "triton"

    def test_a_version_under_another_name_or_none(self, gpu, monkeypatch):
        def version(package):
            if package != name:
                raise PackageNotFoundError(package)
            return "3.1.0"

        monkeypatch.setattr(triton_host, "version", version)
        name = "pytorch-triton"
        self.refused("triton 3.1.0")
        triton_host.triton_version.cache_clear()
        triton_host._too_old.cache_clear()
        name = "none"
        assert attends(packed()) == "triton"  # it says so itself

    def test_a_c_compiler(self, gpu, monkeypatch):
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setattr(triton_host.shutil, "which", lambda name: None)
        self.refused("C compiler.*CC")

    def test_pythons_headers(self, gpu, monkeypatch, tmp_path):
        monkeypatch.setattr(triton_host.sysconfig, "get_path", lambda *_: str(tmp_path))
        self.refused(r"Python\.h \(package python3-dev")


def test_a_gpu_that_is_not_there_is_left_to_sdpa():
    """As in an export on fake tensors: asking the driver would raise."""
    with FakeTensorMode():
        assert attends(packed()) == "sdpa"


def small_model(backend=None, **options):
    """In float16 on the GPU; made there, as fake parameters can't be moved."""
    config = VisionConfig(width=128, layers=4, heads=2, mlp_width=256, patch_size=8, grid=(6, 6), embed_dim=32)
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("cuda:0"):
            return GemVisionTransformer(config, GemOptions(gem_blocks=3, **options), backend)
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
    # A LayerNorm with a sum or norms: the embedding's, the second of the first block, all of GEM's, the head's.
    assert seen == {"layer_norm_triton": 1 + 1 + 5 + 1, "self_self_attention_triton": 3, "unit_rows_triton": 1}
    for strict in (False, True):
        code = torch.export.export(model, (pixels,), strict=strict).graph_module.code
        for name, count in seen.items():
            assert code.count(f"ops.gem_fast.{name}") == count


def test_a_fixed_temperature_needs_no_norms(gpu):
    model = small_model(inverse_temperature=3.0)
    pixels = torch.empty(2, 3, 48, 48, dtype=torch.float16, device="cuda:0")
    with mock.patch.object(layer_norm, "OPERATION", mock.Mock(side_effect=layer_norm.OPERATION)) as norms:
        model(pixels)
    assert len(norms.call_args_list) == 9
    assert all(call.args[6] is None for call in norms.call_args_list)


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
    assert chosen("decode_labels", scores.double(), (8, 9), 100.0, 0.0) == "sdpa"
    assert chosen("decode_heatmaps", scores.double(), (8, 9)) == "sdpa"


def test_triton_by_name_fails_loudly_on_the_cpu(monkeypatch):
    x, scores = torch.zeros(1, 4, 8), torch.zeros(2, 3, 3)
    calls = (
        lambda backend: self_self_attention(torch.zeros(1, 4, 3, 1, 8), torch.ones(1), backend=backend),
        lambda backend: layer_norm_and_temperature(x, torch.ones(8), torch.ones(8), 1e-5, 8, backend=backend),
        lambda backend: quick_gelu(x, backend),
        lambda backend: unit_rows(x, backend),
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


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_the_cpu_kernels_by_name_fail_loudly_where_they_cannot_serve(monkeypatch, by):
    """No operation that has them falls back in silence; `unit_rows` has none, and takes plain torch."""
    scores, qkv = torch.zeros(2, 3, 3), torch.zeros(1, 4, 3, 1, 8)
    normed = [torch.ones(shape, dtype=torch.float64) for shape in ((1, 4, 8), (8,), (8,))]
    asked = "cpu" if by == "argument" else None
    if by == "environment":
        monkeypatch.setenv("GEM_FAST_BACKEND", "cpu")
    for call, reason in (
        (lambda: self_self_attention(qkv.double(), 3.0, backend=asked), "float64"),
        (lambda: query_key_attention(qkv.double(), asked), "query_key_attention: .*float64"),
        (lambda: query_key_attention(qkv[..., :4], asked), "multiple of 8 up to 128, and D is 4"),
        (lambda: query_key_attention(qkv.to("meta"), asked), "on meta"),
        (lambda: layer_norm_and_temperature(*normed, 1e-5, 8, backend=asked), "layer_norm_and_temperature: .*float64"),
        (lambda: decode_labels(scores.double(), (4, 4), backend=asked), "decode_labels: .*float64"),
        (lambda: decode_labels(scores.to("meta"), (4, 4), backend=asked), "on meta"),
        (lambda: decode_heatmaps(scores.bfloat16(), (4, 4), backend=asked), "decode_heatmaps: .*bfloat16"),
        (lambda: decode_heatmaps(scores.clone().requires_grad_(), (4, 4), backend=asked), "gradient"),
    ):
        with pytest.raises(ValueError, match=f"'cpu' can't serve: .*{reason}|{reason}"):
            call()
    x = torch.randn(1, 4, 8, dtype=torch.float64)
    assert torch.equal(unit_rows(x, asked), unit_rows(x, "sdpa"))


def test_a_graph_cannot_hold_the_cpu_kernels_that_decode():
    """By name that is an error when the graph is made; by itself the graph gets torch's operations."""

    class Decode(torch.nn.Module):
        def __init__(self, backend):
            super().__init__()
            self.backend = backend

        def forward(self, scores):
            return decode_labels(scores, (4, 4), backend=self.backend)

    scores = torch.rand(2, 3, 3)
    assert "native" not in torch.export.export(Decode(None), (scores,)).graph_module.code
    with pytest.raises(Exception, match="a graph is being traced"):
        torch.export.export(Decode("cpu"), (scores,), strict=False)


def toy(why_not=lambda *_: None, pays=True):
    rows = (
        Backend("fast", lambda x: "fast", why_not, lambda x: pays),
        Backend("cpu", lambda x: "cpu", lambda x: None if x > 0 else "x is not positive"),
        Backend("sdpa", lambda x: "plain"),
    )
    return Operation("toy", rows, lambda dtype, device: (1,))


def test_the_rule_of_taking_a_backend(monkeypatch):
    """The first that serves and pays; by name the one asked for, or an error, or plain torch for what is missing."""
    monkeypatch.setitem(OPERATIONS, "toy", toy())
    assert toy()(None, 1) == "fast"
    assert toy(pays=False)(None, 1) == "cpu"
    assert toy(lambda x: "never")(None, 1) == "cpu"
    assert toy(lambda x: "never")(None, 0) == "plain"
    assert toy(pays=False)("fast", 1) == "fast"
    assert toy()("cpu", 1) == "cpu"
    assert toy()("sdpa", 1) == toy()("reference", 1) == toy()("triton", 1) == "plain"
    with pytest.raises(ValueError, match="toy: the backend 'fast' can't serve: never"):
        toy(lambda x: "never")("fast", 1)
    with pytest.raises(ValueError, match="toy: the backend 'cpu' can't serve: x is not positive"):
        toy()("cpu", 0)
    monkeypatch.setenv("GEM_FAST_BACKEND", "cpu")
    assert toy()(None, 1) == "cpu"
    assert toy()("fast", 1) == "fast"
    with pytest.raises(ValueError, match="'cpu' can't serve"):
        toy()(None, 0)
    monkeypatch.setenv("GEM_FAST_BACKEND", "magic")
    with pytest.raises(ValueError, match="'magic' in GEM_FAST_BACKEND; the backends are reference, sdpa"):
        toy()(None, 1)
    monkeypatch.setenv("GEM_FAST_BACKEND", "")
    assert toy()(None, 1) == "fast"


def test_one_more_row_is_one_more_backend(monkeypatch):
    """It can be asked for everywhere, and only the operation that has it takes it."""
    halves = Backend("halves", lambda qkv: qkv[:, :, 2].flatten(2) / 2, pays=lambda qkv: False)
    more = Operation("query_key_attention", (halves, *query_key.OPERATION.backends), query_key.OPERATION.example)
    monkeypatch.setattr(query_key, "OPERATION", more)
    monkeypatch.setitem(OPERATIONS, more.name, more)
    qkv = torch.randn(1, 5, 3, 1, 8)
    torch.testing.assert_close(query_key_attention(qkv, "halves"), qkv[:, :, 2].flatten(2) / 2)
    torch.testing.assert_close(query_key_attention(qkv), query_key_attention(qkv, "sdpa"))
    plain = self_self_attention(qkv, 3.0, backend="sdpa")
    torch.testing.assert_close(self_self_attention(qkv, 3.0, backend="halves"), plain, rtol=0, atol=0)
    check_name("halves")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="unknown backend 'halves'"):
        check_name("halves")


def test_every_operation_has_plain_torch_and_ends_with_what_serves_all():
    known = {
        "self_self_attention": ("cpu", "triton", "sdpa", "reference"),
        "pair_attention": ("cpu", "triton", "sdpa", "reference"),
        "query_key_attention": ("cpu", "sdpa"),
        "layer_norm_and_temperature": ("cpu", "triton", "sdpa"),
        "quick_gelu": ("cpu", "triton", "sdpa"),
        "silu_gate": ("cpu", "sdpa"),
        "unit_rows": ("triton", "sdpa"),
        "int8_linear": ("cpu", "sdpa"),
        "int8_mlp": ("cpu", "sdpa"),
        "decode_labels": ("cpu", "triton", "sdpa"),
        "decode_heatmaps": ("cpu", "triton", "sdpa"),
    }
    assert {each.name: tuple(row.name for row in each.backends) for each in OPERATIONS.values()} == known
    assert names() == ("reference", "sdpa", "cpu", "triton")
    assert self_self.OPERATION is OPERATIONS["self_self_attention"]
    for each in OPERATIONS.values():
        arguments = each.example(torch.float64, torch.device("meta"))
        assert each.backends[-1].why_not(*arguments) is None
        assert each.backends[-1].pays(*arguments)


def test_the_report_compiles_what_is_taken_without_being_asked_for():
    assert set(COMPILED) == set(ARCHITECTURES)
