"""How this project's operators are registered with torch, so that they trace, compile and export."""

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("gem_fast", "FRAGMENT")


def register(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Register `gem_fast::NAME` of a schema `NAME(...) -> ...`, without a backward; returns what calls it.

    `torch.library.custom_op` would do the same, but its layers in Python take longer than a launch, and its first call
    imports Dynamo.

    Args:
        run: computes it, on any device.
        fake: its results on fake tensors.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"gem_fast::{name}", fake, lib=_LIBRARY)
    operator: Callable[..., Any] = getattr(torch.ops.gem_fast, name).default
    return operator
