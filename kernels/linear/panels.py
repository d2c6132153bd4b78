"""Linear layers in float32 by the native kernel of `native/`, which reads weights that lie in panels.

Weights come from memory in each forward, and oneDNN waits for them: at 785 rows it does 275 GFLOP/s on 2 cores of an
Intel Xeon (family 6 model 207, `python -m tools.linear_rates`). Here the next ones are fetched meanwhile.
"""

import os
from typing import NamedTuple

import torch
from gem_fast.kernels.backends import VARIABLE
from gem_fast.kernels.cpu_library import call, int64s, pointer, why_no_panels
from gem_fast.kernels.gradients import wants_gradient
from gem_fast.kernels.operators import register
from torch import Tensor

NAME = "cpu"  # of the backend that all native kernels are
ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu")  # as the library numbers them
PANEL = 32  # outputs whose weights lie together
LEAST_ROWS = 64  # of each thread, as in the library
_LINE = 64  # bytes that panels are aligned to
_LEAST = 2**19  # numbers of a weight that does not stay in a core's cache from one forward to the next


class Panels(NamedTuple):
    """A weight `[O, I]` in panels.

    Attributes:
        values: `[O / 32, I, 32]`, float32, aligned to 64 bytes.
    """

    values: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        panels, inputs, width = self.values.shape
        return panels * width, inputs

    @property
    def requires_grad(self) -> bool:
        return self.values.requires_grad

    def to_dense(self) -> Tensor:
        """The plain weight, the same numbers."""
        return self.values.transpose(1, 2).reshape(self.shape)


def in_panels(weight: Tensor) -> Panels | None:
    """A plain weight `[O, I]` in panels, or None where they don't serve: by its type, device or size, or the CPU."""
    outputs, inputs = weight.shape
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or weight.requires_grad or weight.is_mkldnn:
        return None
    asked = os.environ.get(VARIABLE) or NAME
    if outputs % PANEL or weight.numel() < _LEAST or asked != NAME or why_no_panels():
        return None
    memory = torch.empty(weight.nbytes + _LINE, dtype=torch.uint8, device=weight.device)
    start = -memory.data_ptr() % _LINE
    values = memory[start : start + weight.nbytes].view(torch.float32).view(outputs // PANEL, inputs, PANEL)
    values.copy_(weight.detach().view(outputs // PANEL, PANEL, inputs).transpose(1, 2))
    return Panels(values)


def why_not(x: Tensor, weight: Panels, bias: Tensor | None) -> str | None:
    """The reason why the kernel can't take tokens x, or None."""
    tensors = (x, weight.values) if bias is None else (x, weight.values, bias)
    if any(each.device.type != "cpu" or each.dtype != torch.float32 for each in tensors):
        return "it computes float32 on the CPU"
    if wants_gradient(*tensors):
        return "it has no backward, and a gradient is required"
    outputs, inputs = weight.shape
    if x.shape[-1:] != (inputs,) or (bias is not None and bias.shape != (outputs,)):
        return f"it takes {inputs} inputs and {outputs} biases"
    if weight.values.data_ptr() % _LINE or not weight.values.is_contiguous():
        return "its panels are not aligned"
    return why_no_panels()


def panels_linear(x: Tensor, weight: Panels, bias: Tensor | None, activation: str | None) -> Tensor:
    """`linear` where `why_not` is None: each row has bits of its own, whatever else is multiplied with it."""
    found: Tensor = _OPERATOR(x, weight.values, bias, activation)
    return found


def pays_in_one_pass(x: Tensor) -> bool:
    """Whether there are rows enough for all threads: fewer rows share out the weights, which one pass can't."""
    return x.numel() >= LEAST_ROWS * torch.get_num_threads() * x.shape[-1]


def panels_mlp(
    x: Tensor, first: tuple[Panels, Tensor | None], second: tuple[Panels, Tensor | None], activation: str | None
) -> Tensor:
    """`mlp` where `why_not` is None for each layer: the bits of one after the other."""
    (weight, bias), (other, other_bias) = first, second
    found: Tensor = _MLP(x, weight.values, bias, other.values, other_bias, activation)
    return found


def _linear(x: Tensor, panels: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    out = _result(x, panels)
    if out.numel():
        x, inputs = x.contiguous(), x.shape[-1]
        call(
            "gem_fast_linear",
            pointer(x),
            pointer(panels),
            pointer(None if bias is None else bias.contiguous()),
            int64s((x.numel() // inputs, inputs, out.shape[-1])),
            _number(activation),
            pointer(out),
            torch.get_num_threads(),
        )
    return out


def _mlp(
    x: Tensor,
    first: Tensor,
    first_bias: Tensor | None,
    second: Tensor,
    second_bias: Tensor | None,
    activation: str | None,
) -> Tensor:
    out = _result(x, second)
    if out.numel():
        x, width = x.contiguous(), x.shape[-1]
        call(
            "gem_fast_mlp",
            pointer(x),
            pointer(first),
            pointer(None if first_bias is None else first_bias.contiguous()),
            pointer(second),
            pointer(None if second_bias is None else second_bias.contiguous()),
            int64s((x.numel() // width, width, second.shape[1], out.shape[-1])),
            _number(activation),
            pointer(out),
            torch.get_num_threads(),
        )
    return out


def _number(activation: str | None) -> int:
    return -1 if activation is None else ACTIVATIONS.index(activation)


def _result(x: Tensor, panels: Tensor, *_: object) -> Tensor:
    return x.new_empty(*x.shape[:-1], panels.shape[0] * panels.shape[2])


_OPERATOR = register("linear_cpu(Tensor x, Tensor panels, Tensor? bias, str? activation) -> Tensor", _linear, _result)
_MLP = register(
    "mlp_cpu(Tensor x, Tensor first, Tensor? first_bias, Tensor second, Tensor? second_bias, str? activation)"
    " -> Tensor",
    _mlp,
    lambda x, first, first_bias, second, *_: _result(x, second),
)
