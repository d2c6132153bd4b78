"""A linear layer and the activation after it; on x86-64 CPUs one call that does both tile by tile: ours or oneDNN's.

torch hands float32 products to MKL, which was slower than oneDNN on the two CPUs where both were measured, AMD EPYCs
with AVX-512 (on the newer one 224 against 464 GFLOP/s, `python -m gem_fast.bench.ceiling`); in any type the fused
activation saves writing and reading the widest tensor of a transformer block.
"""

import platform

import torch
import torch.nn.functional as F
from gem_fast.kernels.activation.quick_gelu import quick_gelu
from gem_fast.kernels.gradients import wants_gradient
from torch import Tensor

from .panels import ACTIVATIONS, Panels, panels_linear, panels_mlp, pays_in_one_pass, why_not

# oneDNN's name and variant of an activation; it has none for quick_gelu.
_FUSED = {None: ("none", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh")}
# Before, a trace takes a prepacked weight for a plain one, and what is compiled of it fails; and in 2.11 bits of a row
# by a plain weight depend on the number of rows. Compared as versions.
_PREPACKS = torch.__version__ >= "2.14"
_ROWS = 785  # that a weight is prepacked for; any number is right


def linear(
    x: Tensor,
    weight: Tensor | Panels,
    bias: Tensor | None = None,
    activation: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """`activation(x @ weight.T + bias)`.

    Args:
        x: `[..., I]`, of weight's type.
        weight, bias: `[O, I]`, plain, `prepacked` or `in_panels`, and `[O]` or None.
        activation: None, `gelu`, `gelu_tanh` or `quick_gelu`.
        backend: of `quick_gelu`, by name; None for what serves.

    Returns:
        `[..., O]`.
    """
    if isinstance(weight, Panels):
        if _panels_serve(x, weight, bias, activation):
            return panels_linear(x, weight, bias, activation)
        weight = weight.to_dense()
    if weight.is_mkldnn:
        x = x.contiguous()
    if _serves(x, weight, bias):
        if not _PREPACKS and x.ndim == 3 and len(x) > 1:
            return torch.cat([linear(x[i : i + 1], weight, bias, activation, backend) for i in range(len(x))])
        fused, variant = _FUSED.get(activation, _FUSED[None])
        single = x.numel() == x.shape[-1]  # a row that has bits of its own: it is taken as one of two
        rows = torch.stack([x, x]) if single else x
        y: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, fused, [], variant)
        y = y[0] if single else y
        return y if activation in _FUSED else activate(y, activation, backend)
    if weight.is_mkldnn:  # for a gradient, say
        weight = weight.to_dense()
    if x.device.type == "cpu" and x.ndim == 3 and not _makes_a_program() and len(x) > 1:
        # MKL's bits depend on the number of rows: images are taken one by one.
        return torch.stack([activate(F.linear(image, weight, bias), activation, backend) for image in x])
    return activate(F.linear(x, weight, bias), activation, backend)


def linear_of_each(x: Tensor, weights: Tensor) -> Tensor:
    """`x @ weights[b].T` of each image b by itself, `[B, R, O]`: x `[R, I]` or `[B, R, I]`, weights `[B, O, I]`."""
    if weights.device.type != "cpu" or _makes_a_program():
        return x @ weights.transpose(-2, -1)
    return torch.stack([linear(*each) for each in zip(x.expand(len(weights), -1, -1), weights, strict=True)])


def mlp(
    x: Tensor,
    first: tuple[Tensor | Panels, Tensor | None],
    second: tuple[Tensor | Panels, Tensor | None],
    activation: str | None,
    backend: str | None = None,
) -> Tensor:
    """`linear(linear(x, *first, activation), *second)`, of many rows in one pass where both weights lie in panels.

    The bits are the same.
    """
    (weight, bias), (other, other_bias) = first, second
    if isinstance(weight, Panels) and isinstance(other, Panels) and _panels_serve(x, weight, bias, activation):
        between = x.new_empty(0, weight.shape[0])
        if _panels_serve(between, other, other_bias, None) and pays_in_one_pass(x):
            return panels_mlp(x, (weight, bias), (other, other_bias), activation)
    return linear(linear(x, weight, bias, activation, backend), other, other_bias, None, backend)


def _panels_serve(x: Tensor, weight: Panels, bias: Tensor | None, activation: str | None) -> bool:
    known = activation is None or activation in ACTIVATIONS
    return known and not _makes_a_program() and why_not(x, weight, bias) is None


def prepacked(weight: Tensor) -> Tensor:
    """A weight `[O, I]` as oneDNN's product reads it, which `linear` takes too; itself where oneDNN serves it not, and
    before torch 2.14.

    Plain weights are laid out so in each call. Such a tensor is opaque: it has no storage, and little but `linear` and
    `to_dense`, which gives the same numbers back, takes it. Bits of a product are those with the plain weight.
    """
    if weight.device.type != "cpu" or weight.is_mkldnn or weight.requires_grad:
        return weight
    if not (_PREPACKS and _onednn(weight.dtype)):
        return weight
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    return packed


def activate(x: Tensor, activation: str | None, backend: str | None = None) -> Tensor:
    """The activation by name, element by element, of a fresh product; ValueError if there is none of that name."""
    if activation is None:
        return x
    if activation == "quick_gelu":
        return quick_gelu(x, backend)
    if activation not in _FUSED:
        raise ValueError(f"activation must be gelu, gelu_tanh or quick_gelu, got {activation!r}")
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


def _makes_a_program() -> bool:
    """Whether torch compiles or traces: then it is torch's own product, of any batch and of a plain weight."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def _serves(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN's product takes these: on an x86-64 CPU, and nothing has to see inside.

    Its bits are those of any batch, from torch 2.14 on, and of any number of threads. MKL's are not, least of all on
    AMD's CPUs; it takes some 15 µs less for the smallest products.
    """
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return (
        x.device.type == "cpu"
        and not _makes_a_program()  # first: a size that a traced program compares is fixed in it
        and x.is_contiguous()
        and x.shape[-1:] == weight.shape[1:] != (0,)  # torch tells what does not fit
        and (bias is None or bias.shape == weight.shape[:1])
        and all(t.dtype == x.dtype for t in tensors)
        and not wants_gradient(*tensors)
        and _onednn(x.dtype)
    )


def _onednn(dtype: torch.dtype) -> bool:
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    if not torch.backends.mkldnn.is_available() or not torch._C._get_mkldnn_enabled():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
