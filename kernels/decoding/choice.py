"""What decodes scores: Triton, the native CPU kernels, or torch's own operations."""

import torch
from gem_fast.kernels.choice import asked_backend, takes
from gem_fast.kernels.triton_host import is_compiled_for, why_no_triton
from torch import Tensor

from . import cpu


def find_decoder(
    scores: Tensor,
    size: tuple[int, int] = (1, 1),
    backend: str | None = None,
    native: tuple[torch.dtype, ...] = (torch.float32,),
) -> str:
    """`"triton"`, `"native"` or `"torch"` for scores `[P, h, w]` and an output size.

    Triton if it is asked for by name or in `GEM_FAST_BACKEND`, or if nothing is and the scores are on a GPU it serves;
    the native kernels if `"cpu"` or nothing is asked for, and they serve scores that are of one of the types `native`.

    Raises:
        ValueError: the backend asked for does not exist, or is Triton and can't serve.
    """
    if takes("triton", backend, why_no_kernel(scores, size), is_compiled_for(scores.device)):
        return "triton"
    return "native" if asked_backend(backend) in (None, "cpu") and cpu.why_not(scores, *native) is None else "torch"


def why_no_kernel(scores: Tensor, size: tuple[int, int]) -> str | None:
    """The reason why the Triton kernels can't decode these scores, or None if they can."""
    if size[0] > 65535 or scores.shape[0] * size[0] >= 2**31:
        return "more than 65,535 output rows, or 2³¹ of all prompts, do not fit a launch grid"
    return why_no_triton(scores, "scores")
