"""What is checked: a kernel on a shape in a type, the ways to compute it, and what they are compared with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

Call: TypeAlias = Callable[[], Any]
Outputs: TypeAlias = dict[str, Tensor]  # the last dimension of each is a row, whose error is looked at by itself


@dataclass(frozen=True)
class Problem:
    """A case with its tensors on the device.

    Attributes:
        ours: what is checked, by the name of the variant, such as `tiled` and `resident`.
        rivals: other ways to compute the same.
        truth: the outputs in float64.
        plain: the outputs by plain torch in the case's own type, whose errors tell what is allowed.
        otherwise: whether a variant is also called on another stream and as a replayed graph.
        outputs: from what a variant or rival returns to what is compared, with the names of `truth`.
    """

    ours: dict[str, Call]
    rivals: dict[str, Call]
    truth: Callable[[], Outputs]
    plain: Callable[[], Outputs]
    otherwise: bool = True
    outputs: Callable[[Any], Outputs] = field(default=lambda result: {"out": result})


@dataclass(frozen=True)
class Case:
    """One kernel on one shape in one kind of arithmetic: bfloat16, float16, float32 or tf32.

    Attributes:
        kernel: what `--only` picks it by.
        shape: what is computed, for the reader; with kernel and kind it identifies the case.
        build: makes its tensors on a device. Off a GPU nothing of it is compiled.
        timed: whether how long it takes is of interest.
    """

    kernel: str
    shape: str
    kind: str
    build: Callable[[torch.device], Problem]
    timed: bool = True

    def __str__(self) -> str:
        return f"{self.kernel} {self.shape} {self.kind}"
