"""The attention of unchanged blocks: the native kernel and its fallback against float64."""

import pytest
import torch
from gem_fast.kernels import pair_attention, query_key_attention
from gem_fast.kernels.attention.cpu import query_key_cpu
from gem_fast.kernels.cpu_library import paths

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_qkv(B, N, H, D, scale=1.0, dtype=torch.float32):
    qkv = torch.randn(B, N, 3, H, D, generator=torch.Generator().manual_seed(N), dtype=torch.float64)
    qkv[:, :, :2] *= scale
    return qkv.to(dtype)


def exact(qkv):
    query, key, value = qkv.double().permute(2, 0, 3, 1, 4)
    weights = torch.softmax(query @ key.transpose(-2, -1) * qkv.shape[-1] ** -0.5, dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def error(result, truth):
    return ((result.double() - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize("path", [None, *paths()])
@pytest.mark.parametrize("N", [1, 2, 17, 33, 95, 97, 197, 257])
@pytest.mark.parametrize("D", [8, 64, 72, 80, 96, 104, 128])
def test_every_path(path, N, D):
    dtype, limit = (torch.bfloat16, 3e-3) if path == "avx512_bf16" else (torch.float32, 1e-6)
    qkv = make_qkv(2, N, 2, D, dtype=dtype)
    result = query_key_cpu(qkv, path=path) if path else query_key_attention(qkv)
    assert result.shape == (2, N, 2 * D)
    assert error(result, exact(qkv)) < limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.5, 1.5, 5.0])
def test_low_precision_error_is_at_most_twice_plain_torch(dtype, scale):
    qkv = make_qkv(1, 197, 3, 64, scale, DTYPES[dtype])
    plain = query_key_attention(qkv, backend="sdpa")
    assert query_key_attention(qkv).dtype == qkv.dtype
    assert error(query_key_attention(qkv), exact(qkv)) <= max(2 * error(plain, exact(qkv)), 1e-6)


@pytest.mark.skipif(not paths(), reason="the native kernel is not here")
@pytest.mark.parametrize("path", paths())
def test_a_bound_far_above_the_largest_logit(path):
    """One long key, which no query likes, pushes ‖q‖‖k‖ so far up that every weight would underflow."""
    qkv = make_qkv(1, 150, 1, 64)
    qkv[:, 40, 1] *= 300
    likes = torch.einsum("nd,d->n", qkv[0, :, 0, 0], qkv[0, 40, 1, 0])
    qkv[:, :, 0] *= -torch.sign(likes).view(1, 150, 1, 1)
    dtype, limit = (torch.bfloat16, 4e-3) if path == "avx512_bf16" else (torch.float32, 2e-6)
    qkv = qkv.to(dtype)
    assert error(query_key_cpu(qkv, path=path), exact(qkv)) < limit


@pytest.mark.skipif(not paths(), reason="the native kernel is not here")
@pytest.mark.parametrize("path", paths())
def test_logits_of_which_a_float_holds_no_fraction(path):
    """Of 10^11 and more: the softmax is one of 0 and 1, and rounding must not make it infinity or 0/0."""
    qkv = make_qkv(1, 150, 2, 64, 60_000.0, dtype=torch.bfloat16).float()
    truth = exact(qkv)
    assert error(query_key_cpu(qkv.bfloat16() if path == "avx512_bf16" else qkv, path=path), truth) < 3e-3
    assert error(pair_attention(qkv, 64**-0.5, "qq", backend="cpu"), exact(qkv[:, :, [0, 0, 2]])) < 1e-6


@pytest.mark.skipif(not paths(), reason="the native kernel is not here")
def test_another_default_device_is_no_matter():
    qkv = make_qkv(1, 70, 1, 16)
    with torch.device("meta"):  # as after set_default_device("cuda"): what a kernel reads must lie where qkv does
        result = query_key_attention(qkv, backend="cpu")
    assert error(result, exact(qkv)) < 1e-6


@pytest.mark.parametrize("shape", [(1, 70, 2, 1, 16), (70, 3, 1, 16), (1, 70, 4, 1, 16)])
def test_other_shapes_are_told(shape):
    with pytest.raises(ValueError, match=r"qkv must have the shape \[B, N, 3, H, D\]"):
        query_key_attention(torch.zeros(shape))


def test_strided_input():
    wide = make_qkv(2, 130, 5, 64).transpose(1, 3).contiguous().transpose(1, 3)
    sliced = wide[:, ::2, :, 1:4]
    assert error(query_key_attention(sliced), exact(sliced)) < 1e-6


@pytest.mark.skipif(not paths(), reason="the native kernel is not here")
def test_opcheck_and_compile():
    qkv = make_qkv(2, 30, 2, 32)
    torch.library.opcheck(torch.ops.gem_fast.query_key_attention_cpu.default, (qkv, paths()[-1]))
    compiled = torch.compile(query_key_attention, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(qkv), query_key_attention(qkv))
    tokens = torch.export.Dim("tokens", min=2, max=500)

    class Attention(torch.nn.Module):
        def forward(self, qkv):
            return query_key_attention(qkv)

    exported = torch.export.export(Attention(), (qkv,), dynamic_shapes={"qkv": {1: tokens}})
    longer = make_qkv(2, 200, 2, 32)
    torch.testing.assert_close(exported.module()(longer), query_key_attention(longer))


def test_what_the_kernel_cannot_serve_falls_back():
    for qkv in (make_qkv(1, 9, 1, 12), make_qkv(1, 9, 1, 16, dtype=torch.float64)):
        assert error(query_key_attention(qkv), exact(qkv)) < 1e-6
    trained = make_qkv(1, 9, 1, 16).requires_grad_()
    query_key_attention(trained).sum().backward()
    assert trained.grad is not None
