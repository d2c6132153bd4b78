"""LayerNorm with token norms in Triton against float64. `test_triton.py` runs this file."""

import functools

import pytest
import torch
from gem_fast.kernels.layer_norm import add_layer_norm, layer_norm_and_temperature
from gem_fast.kernels.layer_norm.layer_norm import reference
from gem_fast.kernels.layer_norm.triton_layer_norm import triton_layer_norm, why_not

from tests.kernels import layer_norm_tensors
from tests.kernels.layer_norm_tensors import errors

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
make = functools.partial(layer_norm_tensors.make, device=DEVICE)
summed = functools.partial(layer_norm_tensors.summed, device=DEVICE)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch, nearest_bfloat16):
    """What `torch.empty` returns is full of NaN, so an element that is never written shows."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))


@pytest.mark.parametrize(("N", "C"), [(1, 1), (5, 1), (1, 32), (3, 768), (1, 1000), (5, 1664)])
def test_widths_and_lengths(N, C):
    x, weight, bias = make(2, N, C)
    y, norms = triton_layer_norm(x, weight, bias, 1e-5)
    y_truth, norms_truth = reference(x.double(), weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(y.double(), y_truth, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(norms.double(), norms_truth, rtol=1e-6, atol=1e-6)


def test_float16_is_as_exact_as_torch():
    x, weight, bias = make(2, 7, 768, torch.float16)
    y, _ = triton_layer_norm(x, weight, bias, 1e-5)
    truth, _ = reference(x.double(), weight.double(), bias.double(), 1e-5)
    plain, _ = reference(x, weight, bias, 1e-5)
    assert y.dtype == torch.float16
    assert (y - truth).norm() <= 1.1 * (plain - truth).norm()


def test_strided_tokens_with_a_large_common_offset():
    """Every second token of a wider buffer; the variance must survive a mean that is 1,000 times the deviation."""
    x, weight, bias = make(2, 10, 96, offset=2000.0)
    x = torch.cat([x, x], dim=-1)[:, ::2, 48:144]
    y, norms = triton_layer_norm(x, weight, bias, 1e-5)
    y_truth, norms_truth = reference(x.double(), weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(y.double(), y_truth, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norms.double(), norms_truth, rtol=1e-3, atol=0)


def test_float32_is_as_exact_as_torch():
    x, weight, bias = make(3, 7, 768)
    y, c = layer_norm_and_temperature(x, weight, bias, 1e-5, 64, backend="triton")
    plain, plain_c = layer_norm_and_temperature(x, weight, bias, 1e-5, 64, backend="sdpa")
    truth, exact_c = layer_norm_and_temperature(x.double(), weight.double(), bias.double(), 1e-5, 64)
    assert (y - truth).norm() <= 2 * (plain - truth).norm()
    assert (c - exact_c).abs().max() <= 2 * (plain_c - exact_c).abs().max() + 1e-7 * exact_c.max()


def test_the_entry_takes_the_kernel_by_name():
    x, weight, bias = make(3, 6, 64)
    assert why_not(x, weight, bias) is None
    y, c = layer_norm_and_temperature(x, weight, bias, 1e-5, head_width=16, backend="triton")
    truth, norms = reference(x.double(), weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(y.double(), truth, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(c.double(), norms.mean(1) / 4, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.zeros(1, 4, 8, dtype=torch.float64), "float64"),
        (torch.zeros(1, 4, 8193), "8192"),
        (torch.zeros(1, 4, 8, requires_grad=True), "gradient"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_reason(x, reason):
    x = x.to(DEVICE)
    weight, bias = torch.ones(2, x.shape[-1], dtype=x.dtype, device=DEVICE)
    with pytest.raises(ValueError, match=reason):
        layer_norm_and_temperature(x, weight, bias, 1e-5, 4, backend="triton")
    assert layer_norm_and_temperature(x, weight, bias, 1e-5, 4)[1].shape == (1,)


def test_opcheck_compile_and_export():
    class Norm(torch.nn.Module):
        def forward(self, x, weight, bias):
            return layer_norm_and_temperature(x, weight, bias, 1e-5, 16, backend="triton")

    arguments = make(3, 6, 64)
    operation, more = torch.ops.gem_fast.layer_norm_triton.default, [make(3, 6, 64)[0] for _ in range(3)]
    for options in (
        (None, None, None, None, None),
        (more[0], 0.25, *more[1:], None),
        (more[0], None, None, None, None),
    ):
        torch.library.opcheck(operation, (*arguments, 1e-5, *options))
    norm = Norm()
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), norm(*arguments))
    shapes = {"x": {1: torch.export.Dim("tokens", min=2, max=500)}, "weight": None, "bias": None}
    exported = torch.export.export(norm, arguments, dynamic_shapes=shapes)
    longer = make(3, 11, 64)[0], *arguments[1:]
    torch.testing.assert_close(exported.module()(*longer), norm(*longer))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("B", "N", "C", "front", "everywhere"),
    [(2, 5, 768, 0, False), (3, 1, 1, 0, False), (1, 4, 1000, 1, True), (2, 1, 33, 2, True), (2, 3, 96, 0, True)],
)
def test_sums_are_as_exact_as_torch(B, N, C, front, everywhere, dtype):
    x, branch, weight, bias, aside, ahead = summed(B, N, C, dtype, front, everywhere)

    def run(backend, kind):
        wide = [None if t is None else t.to(kind) for t in (x, branch, weight, bias, *aside, ahead)]
        found = add_layer_norm(*wide[:4], 1e-5, 16, tuple(wide[4:6]), wide[6], backend=backend)
        assert found.tokens.shape == found.y.shape == found.aside.shape == (B, N + front, C)
        return found

    ours, plain, truth = run("triton", dtype), run("sdpa", dtype), run("sdpa", torch.float64)
    assert ours.scale.shape == (B, N + front)
    assert ours.y.dtype == ours.tokens.dtype == ours.aside.dtype == dtype
    torch.testing.assert_close(ours.tokens, plain.tokens, rtol=0, atol=0)
    torch.testing.assert_close(ours.aside, plain.aside, rtol=0, atol=0)
    for own, allowed in zip(errors(ours, truth), errors(plain, truth), strict=True):
        assert own <= 2 * allowed + 1e-7


def test_only_what_is_asked_for_is_computed():
    x, branch, weight, bias, aside, _ = summed(2, 5, 64, torch.float32)
    plain = add_layer_norm(x, branch, weight, bias, 1e-5, backend="sdpa")
    found = add_layer_norm(x, branch, weight, bias, 1e-5, backend="triton")
    assert (found.scale, found.aside) == (None, None)
    torch.testing.assert_close(found.y, plain.y)
    found = add_layer_norm(x, None, weight, bias, 1e-5, aside=aside, backend="triton")
    assert found.tokens is x
    assert found.scale is None
    torch.testing.assert_close(found.aside, aside[0] + aside[1])


def test_strided_sums():
    """Every second token of wider buffers, and a sum of tensors with other strides."""
    x, branch, weight, bias, aside, _ = summed(2, 6, 96, torch.float32)
    wide = [torch.cat([each, each], dim=-1)[:, ::2, 48:144] for each in (x, branch)]
    other = tuple(each.transpose(0, 1).contiguous().transpose(0, 1)[:, ::2] for each in aside)
    found = add_layer_norm(*wide, weight, bias, 1e-5, 16, other, backend="triton")
    plain = add_layer_norm(*wide, weight, bias, 1e-5, 16, other, backend="sdpa")
    torch.testing.assert_close(found.tokens, plain.tokens, rtol=0, atol=0)
    torch.testing.assert_close(found.aside, plain.aside, rtol=0, atol=0)
    torch.testing.assert_close(found.y, plain.y)
    torch.testing.assert_close(found.scale.mean(-1), plain.scale)


def test_sums_that_cannot_be_served_are_refused_with_their_reason():
    x, branch, weight, bias, aside, _ = summed(2, 5, 64, torch.float32)
    for options, reason in (
        ({"branch": branch.double()}, "not all that is added"),
        ({"branch": branch.clone().requires_grad_()}, "gradient"),
        ({"branch": branch, "aside": (aside[0].clone().requires_grad_(), aside[1])}, "gradient"),
    ):
        with pytest.raises(ValueError, match=f"'triton' can't serve: .*{reason}"):
            add_layer_norm(x, weight=weight, bias=bias, eps=1e-5, backend="triton", **{"branch": None, **options})


def test_channels_that_are_not_adjacent():
    """As a convolution gives patches."""
    x, branch, weight, bias, _, _ = summed(2, 5, 64, torch.float32)
    apart = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in (x, branch)]
    assert apart[0].stride(-1) != 1
    for found, expected in zip(
        add_layer_norm(*apart, weight, bias, 1e-5, 4, backend="triton")[:3],
        add_layer_norm(x, branch, weight, bias, 1e-5, 4, backend="triton")[:3],
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_no_images_and_no_tokens():
    _, weight, bias = make(1, 1, 8)
    for shape in ((0, 5, 8), (2, 0, 8)):
        x = torch.zeros(shape, device=DEVICE)
        found = add_layer_norm(x, x, weight, bias, 1e-5, 4, (x, x), backend="triton")
        assert found.y.shape == found.tokens.shape == found.aside.shape == shape


def test_tokens_behind_others_may_lie_as_a_convolution_leaves_them():
    x, branch, weight, bias, _, front = summed(2, 6, 32, torch.float32, front=1)
    across = x.transpose(1, 2).contiguous().transpose(1, 2)
    found = add_layer_norm(across, branch, weight, bias, 1e-5, front=front, backend="triton")
    expected = add_layer_norm(x, branch, weight, bias, 1e-5, front=front, backend="sdpa")
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=0, atol=0)
    torch.testing.assert_close(found.y, expected.y)
