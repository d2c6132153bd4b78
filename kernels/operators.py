"""How this project's operators are registered with torch, so that they trace, compile and export."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("gem_fast", "FRAGMENT")


def register(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Register `gem_fast::NAME` of a schema `NAME(...) -> ...`, without a backward; returns what calls it.

    `torch.library.custom_op` would do the same, but its layers in Python take longer than a launch, and its first call
    imports Dynamo. Where nothing looks on, torch's dispatcher is passed by too.

    Args:
        run: computes it, on any device; its first argument is a tensor.
        fake: its results on fake tensors.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"gem_fast::{name}", fake, lib=_LIBRARY)
    operator: Callable[..., Any] = getattr(torch.ops.gem_fast, name).default

    def call(*arguments: Any) -> Any:
        return operator(*arguments) if _seen(arguments[0]) else run(*arguments)

    return call


def _seen(tensor: Tensor) -> bool:
    """Whether anything looks on that has to see an operator: a trace, a mode, a transform, a tensor of another kind."""
    return (
        torch.compiler.is_compiling()
        or type(tensor) is not Tensor
        or torch._C._len_torch_dispatch_stack() > 0
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch._C._functorch.peek_interpreter_stack() is not None
        or tensor.is_neg()
    )
