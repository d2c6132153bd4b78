"""The native CPU kernel on every instruction set that this machine runs: its numerics, and what it reads and writes."""

import weakref
from pathlib import Path

import pytest
import torch
from gem_fast.kernels import cpu_library
from gem_fast.kernels.attention import reference, sdpa
from gem_fast.kernels.attention.cpu import query_key_cpu
from gem_fast.kernels.cpu_library import paths, why_missing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.cpu_attention import QKV, error, make_qkv, native

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=f"cpu can't serve: {why_missing()}")


def exact(qkv, c, iterations=1, projections=QKV):
    return reference.reference(qkv.double(), c.double(), iterations=iterations, projections=projections, normalize=True)


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("N", [1, 2, 7, 15, 16, 17, 31, 33, 48, 95, 96, 97, 121, 193, 197, 257, 289, 385])
@pytest.mark.parametrize("D", [8, 64, 88])
def test_every_path_at_every_edge_of_a_block(path, N, D):
    dtype, limit = (torch.bfloat16, 2.5e-3) if path == "avx512_bf16" else (torch.float32, 1e-6)
    qkv, c = make_qkv(2, N, 2, D, dtype=dtype), torch.tensor([2.0, 6.0])
    assert error(native(qkv, c, path=path), exact(qkv, c)) < limit


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("D", [8, 16, 24, 32, 40, 48, 64, 72, 80, 88, 96, 104, 112, 120, 128])
def test_every_width_and_type_on_every_path(path, dtype, D):
    if path == "avx512_bf16" and dtype != torch.bfloat16:
        pytest.skip("bfloat16 products are for bfloat16")
    qkv, c = make_qkv(1, 130, 2, D, dtype=dtype), torch.tensor([4.0])
    result = native(qkv, c, path=path)
    assert result.dtype == dtype
    assert error(result, exact(qkv, c)) < {torch.float32: 1e-6, torch.bfloat16: 2.5e-3, torch.float16: 3e-4}[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("c", [1.0, 3.0, 10.0])
def test_error_is_no_larger_than_that_of_sdpa(dtype, c):
    qkv, c = make_qkv(1, 785, 3, 64, dtype=dtype), torch.tensor([c])
    rival = sdpa.sdpa(qkv, c, iterations=1, projections=QKV, normalize=True)
    truth = exact(qkv, c)
    assert error(native(qkv, c), truth) <= max(error(rival, truth), 4e-7)


@pytest.mark.parametrize("path", [path for path in paths() if path != "avx512_bf16"])
def test_many_tokens_lose_no_digits(path):
    """Sums of thousands of terms in float32 are as exact as a short one's, for the output nearly cancels."""
    qkv, c = make_qkv(1, 3000, 1, 64), torch.tensor([3.0])
    assert error(native(qkv, c, 1, (2,), path), exact(qkv, c, 1, (2,))) < 4e-7
    query, key, value = qkv.double().permute(2, 0, 3, 1, 4)
    truth = torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    assert error(query_key_cpu(qkv, path=path), truth) < 4e-7


@pytest.mark.parametrize("path", [path for path in paths() if path != "avx512_bf16"])
def test_the_longest_sequence(path):
    """Of 16,385 tokens a few in float64."""
    qkv, c, some = make_qkv(1, 16_385, 1, 8), torch.tensor([3.0]), [0, 95, 96, 9000, 16_384]
    key, value = torch.nn.functional.normalize(qkv[0, :, 0, 0].double(), dim=-1), qkv[0, :, 2, 0].double()
    truth = torch.softmax(c.double() * key[some] @ key.T, dim=-1) @ value
    assert error(native(qkv, c, 0, (0,), path)[0, some], truth) < 2e-6


@settings(max_examples=40, deadline=None)
@given(
    B=st.integers(1, 3),
    N=st.integers(1, 220),
    H=st.integers(1, 3),
    D=st.integers(1, 16).map(lambda n: 8 * n),
    iterations=st.integers(0, 4),
    projections=st.sets(st.sampled_from(QKV), min_size=1).map(lambda s: tuple(sorted(s))),
    path=st.sampled_from(paths() or [None]),
)
def test_any_shape(B, N, H, D, iterations, projections, path):
    """In bfloat16 an iteration feeds on the last one's rounding, and plain torch tells how far that may go; of 1,500
    random cases no error was larger than its. In float32 the largest of 2,400 was 1.4e-6."""
    dtype = torch.bfloat16 if path == "avx512_bf16" else torch.float32
    qkv, c = make_qkv(B, N, H, D, seed=N, dtype=dtype), torch.linspace(1, 6, B)
    truth = exact(qkv, c, iterations, projections)
    plain = reference.reference(qkv, c, iterations=iterations, projections=projections, normalize=True)
    limit = 2e-6 if dtype == torch.float32 else 2 * error(plain, truth)
    assert error(native(qkv, c, iterations, projections, path), truth) <= limit


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("c", [1e-4, 50.0, 200.0, 1e4, 1e6, 1e30])
def test_zero_tokens_attend_uniformly_at_any_temperature(path, c):
    """exp(-c) underflows, but a token of norm zero still gets the mean: of the values, or first of the tokens."""
    qkv = make_qkv(1, 101, 1, 32, dtype=torch.bfloat16)
    qkv[:, [7, 100], :2] = 0
    result = native(qkv, torch.tensor([c]), 0, (0, 1), path)
    mean = qkv[:, :, 2].float().mean(1).flatten(1)
    for token in (7, 100):
        torch.testing.assert_close(result[:, token].float(), mean, rtol=0.01, atol=1e-3)
    assert torch.isfinite(native(qkv, torch.tensor([c]), 2, QKV, path)).all()


@pytest.mark.parametrize("path", paths())
def test_a_refined_zero_token_is_the_mean_token(path):
    qkv, c = make_qkv(1, 130, 1, 64, dtype=torch.bfloat16), torch.tensor([5.0])
    qkv[:, 11] = 0
    assert error(native(qkv, c, 1, (0,), path)[:, 11], exact(qkv, c, 1, (0,))[:, 11]) < 0.02


@pytest.mark.parametrize("path", paths())
def test_all_tokens_zero(path):
    result = native(torch.zeros(1, 20, 3, 1, 32), torch.tensor([3.0]), path=path if path != "avx512_bf16" else None)
    assert (result == 0).all()


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("N", [1, 7, 8, 16, 40, 50, 97, 104])
def test_nan_in_a_head_stays_in_that_head(threads, path, N):
    """On one thread, so that the next head gets the scratch that it leaves."""
    threads(1)
    qkv = make_qkv(2, N, 2, 32, dtype=torch.bfloat16)
    clean = native(qkv, torch.tensor([3.0, 3.0]), path=path)
    qkv[0, 0, :, 1] = torch.nan
    result = native(qkv, torch.tensor([3.0, 3.0]), path=path).view(2, N, 2, 32)
    assert result[0, :, 1].isnan().all()
    clean = clean.view(2, N, 2, 32)
    torch.testing.assert_close(result[0, :, 0], clean[0, :, 0], rtol=0, atol=0)
    torch.testing.assert_close(result[1], clean[1], rtol=0, atol=0)


@pytest.mark.parametrize("path", paths())
def test_every_element_of_the_output_is_written(monkeypatch, path):
    """The output's memory is poisoned before the kernel gets it."""
    empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *size, **kw: empty(self, *size, **kw).fill_(torch.nan))
    for N, D in ((1, 8), (37, 88), (97, 24), (200, 104)):
        result = native(make_qkv(2, N, 3, D, dtype=torch.bfloat16), torch.tensor([2.0, 4.0]), path=path)
        assert torch.isfinite(result).all()


@pytest.mark.parametrize("path", paths())
def test_memory_past_the_input_is_not_read_into_the_result(path):
    """A slice surrounded by NaN, in tokens, heads and channels."""
    wide = torch.full((3, 60, 3, 4, 72), torch.nan, dtype=torch.bfloat16)
    inner = wide[1:2, 5:55, :, 1:3, 8:64]
    inner.copy_(make_qkv(1, 50, 2, 56))
    c = torch.tensor([3.0])
    torch.testing.assert_close(native(inner, c, path=path), native(inner.clone(), c, path=path), rtol=0, atol=0)


@pytest.mark.parametrize("temperatures", [(4.0, 8000.0), (8000.0, 4.0)], ids=str)
def test_each_image_of_a_bfloat16_batch_is_computed_as_alone(temperatures):
    """Beyond a steepness its products are float32's, which is decided for each image by its own temperature."""
    qkv, c = make_qkv(2, 130, 2, 64, dtype=torch.bfloat16), torch.tensor(temperatures)
    together = native(qkv, c)
    for i in range(2):
        alone = native(qkv[i : i + 1], c[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=0)


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("N", [50, 197])
def test_bits_depend_on_no_other_image_head_or_run(path, N):
    qkv, c = make_qkv(3, N, 2, 64, dtype=torch.bfloat16), torch.tensor([2.0, 5.0, 9.0])
    for attend in (lambda qkv, c: native(qkv, c, path=path), lambda qkv, c: query_key_cpu(qkv, path=path)):
        together = attend(qkv, c).view(3, N, 2, 64)
        assert torch.equal(attend(qkv, c).view(3, N, 2, 64), together)
        for i, h in ((0, 0), (2, 1)):
            assert torch.equal(attend(qkv[i : i + 1, :, :, h : h + 1], c[i : i + 1])[0], together[i, :, h])


def test_last_dimension_of_any_stride():
    qkv, c = make_qkv(1, 40, 2, 32), torch.tensor([3.0])
    transposed = qkv.transpose(1, 4).contiguous().transpose(1, 4)
    assert transposed.stride(-1) != 1
    torch.testing.assert_close(native(transposed, c), native(qkv, c), rtol=0, atol=0)


def test_a_pointer_holds_what_it_points_to():
    """A copy that is made for a call lives until its end."""
    tensor = torch.ones(3)
    seen, pointer = weakref.ref(tensor), cpu_library.pointer(tensor)
    del tensor
    assert seen() is not None
    assert pointer.value == seen().data_ptr()
    del pointer
    assert seen() is None
    assert cpu_library.pointer(None).value is None


def test_the_environment_limits_the_instruction_sets(monkeypatch):
    monkeypatch.setattr(cpu_library, "_MOST", "avx2")
    assert paths() == ("avx2",)
    assert "AVX-512 VNNI" in cpu_library.why_no_vnni()
    assert cpu_library.faster_dtype() is torch.float32
    monkeypatch.setattr(cpu_library, "_MOST", "avx3")
    assert cpu_library._load() == (None, "GEM_FAST_CPU must be one of avx512_bf16, avx512, avx2, got 'avx3'")


def test_the_library_of_this_python_is_taken(tmp_path, monkeypatch):
    own = Path(cpu_library._LIBRARY._name)
    (tmp_path / own.name).symlink_to(own)
    (tmp_path / "cpu_native.cpython-300-x86_64-linux-gnu.so").write_text("another Python's, of an older build")
    monkeypatch.setattr(cpu_library, "__file__", str(tmp_path / "cpu_library.py"))
    library, reason = cpu_library._load()
    assert (Path(library._name).name, reason) == (own.name, None)
