"""How this project's operators are registered with torch, so that they trace, compile and export."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("gem_fast", "FRAGMENT")
_PLAIN = frozenset((Tensor, torch.nn.Parameter))


def register(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Register `gem_fast::NAME` of a schema `NAME(...) -> ...`, without a backward; returns what calls it.

    `torch.library.custom_op` would do the same, but its layers in Python take longer than a launch, and its first call
    imports Dynamo. Where nothing looks on, torch's dispatcher is passed by too.

    Args:
        run: computes it, on any device.
        fake: its results on fake tensors.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"gem_fast::{name}", fake, lib=_LIBRARY)
    operator = getattr(torch.ops.gem_fast, name).default
    tensors = [place for place, each in enumerate(operator._schema.arguments) if "Tensor" in str(each.type)]

    def call(*arguments: Any) -> Any:
        seen = _anything_looks_on() or any_is_special(arguments)
        return operator(*arguments) if seen else run(*arguments)

    def any_is_special(arguments: tuple[Any, ...]) -> bool:
        """Whether a tensor's memory is not what it seems to be: of another kind, or with a sign that waits."""
        for place in tensors:  # a loop, which is the fastest, as this is done at each call of a kernel
            each = arguments[place]
            if each is not None and (type(each) not in _PLAIN or each.is_neg()):
                return True
        return False

    return call


def is_transformed() -> bool:
    """Whether a transform of `torch.func` looks on, such as `vmap`, which takes no operator that writes in place."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _anything_looks_on() -> bool:
    """Whether anything looks on that has to see an operator: a trace, a mode, a transform."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or is_transformed()
    )
