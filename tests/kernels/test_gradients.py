"""A derivative that is wanted of any argument is plain torch's, or an error: never zero because a kernel has none."""

import pytest
import torch
from gem_fast.kernels import int8_mlp, linear, pair_attention, prepacked, self_self_attention
from gem_fast.kernels.attention import cpu as attention
from gem_fast.kernels.attention.triton import launch as triton
from gem_fast.kernels.cpu_library import why_missing, why_no_vnni
from gem_fast.kernels.decoding import cpu as decoding
from gem_fast.kernels.int8 import quantize_weight
from gem_fast.kernels.layer_norm import cpu as layer_norm
from gem_fast.kernels.layer_norm import triton_layer_norm
from torch.autograd import forward_ad

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=f"cpu can't serve: {why_missing()}")

QKV = torch.randn(2, 50, 3, 2, 16, generator=torch.Generator().manual_seed(0))
X = torch.randn(1, 1100, 64, generator=torch.Generator().manual_seed(1))
WEIGHT = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    "attention",
    [self_self_attention, lambda *arguments, **backend: pair_attention(*arguments, "qq+kv", **backend)],
    ids=["self-self", "pairs"],
)
def test_of_the_scale_alone(attention):
    def squares(scale, backend=None):
        return attention(QKV.to(scale.dtype), scale, backend=backend).square().sum()

    scale = torch.tensor([0.5, 3.0])
    wide, scale = scale.double().requires_grad_(), scale.requires_grad_()
    (exact,) = torch.autograd.grad(squares(wide, "reference"), wide)
    (found,) = torch.autograd.grad(squares(scale), scale)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


def test_of_what_goes_with_tokens_in_int8():
    first, second = quantize_weight(WEIGHT), quantize_weight(WEIGHT.T)
    gain = torch.ones(64, requires_grad=True)
    for branch in (None, torch.zeros(1, 3, 64, requires_grad=True)):
        assert int8_mlp(X[:, :3], branch, gain, torch.zeros(64), 1e-5, first, second, "gelu").requires_grad
    if why_no_vnni():
        return
    with pytest.raises(ValueError, match="a gradient is required"):
        int8_mlp(X[:, :3], None, gain, torch.zeros(64), 1e-5, first, second, "gelu", backend="cpu")


def test_of_forward_mode():
    with forward_ad.dual_level():
        x = forward_ad.make_dual(X, X.flip(1))
        found = forward_ad.unpack_dual(linear(x, prepacked(WEIGHT))).tangent
        for serves, arguments in (
            (attention.why_not, (QKV, forward_ad.make_dual(torch.ones(2), torch.ones(2)), 1, (0,), True)),
            (layer_norm.why_not, (X, *WEIGHT[:2], 1e-5, x)),
            (decoding.why_not, (x, torch.float32)),
        ):
            assert "gradient" in serves(*arguments)
    torch.testing.assert_close(found, X.flip(1) @ WEIGHT.T)
    assert attention.why_not(QKV, torch.ones(2), 1, (0,), True) is None


def test_none_is_asked_of_triton():
    pytest.importorskip("triton")
    scale = torch.ones(2, requires_grad=True)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.ones(2), torch.ones(2))
        reasons = [triton.why_not(QKV, each) for each in (scale, dual)]
        reasons += [triton_layer_norm.why_not(X, *WEIGHT[:2], 1e-5, forward_ad.make_dual(X, X))]
    reasons += [triton_layer_norm.why_not(X, WEIGHT[0], WEIGHT[1].clone().requires_grad_(), 1e-5)]
    assert set(reasons) == {"it has no backward, and a gradient is required"}
    assert "not on a CUDA" in triton.why_not(QKV, scale.detach())
