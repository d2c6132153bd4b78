"""What decodes scores: Triton, or torch's own operations."""

from gem_fast.kernels.choice import takes
from gem_fast.kernels.triton_host import is_compiled_for, why_no_triton
from torch import Tensor


def find_decoder(scores: Tensor, size: tuple[int, int] = (1, 1), backend: str | None = None) -> str:
    """`"triton"` or `"torch"` for scores `[P, h, w]` and an output size.

    Triton if it is asked for by name or in `GEM_FAST_BACKEND`, or if nothing is and the scores are on a GPU it serves.

    Raises:
        ValueError: the backend asked for does not exist, or is Triton and can't serve.
    """
    return (
        "triton" if takes("triton", backend, why_no_kernel(scores, size), is_compiled_for(scores.device)) else "torch"
    )


def why_no_kernel(scores: Tensor, size: tuple[int, int]) -> str | None:
    """The reason why the Triton kernels can't decode these scores, or None if they can."""
    if size[0] > 65535 or scores.shape[0] * size[0] >= 2**31:
        return "more than 65,535 output rows, or 2³¹ of all prompts, do not fit a launch grid"
    return why_no_triton(scores, "scores")
