"""What the Triton kernels that decode scores can't serve. Importing it needs no Triton."""

from typing import Any

from gem_fast.kernels.triton_host import is_compiled_for, why_no_triton
from torch import Tensor


def why_not(scores: Tensor, size: tuple[int, int], *_: Any) -> str | None:
    """The reason why the Triton kernels can't decode these scores, or None if they can."""
    if size[0] > 65535 or scores.shape[0] * size[0] >= 2**31:
        return "more than 65,535 output rows, or 2³¹ of all prompts, do not fit a launch grid"
    return why_no_triton(scores, "scores")


def pays(scores: Tensor, *_: Any) -> bool:
    """Whether they are the ones to take where no backend is asked for."""
    return is_compiled_for(scores.device)
