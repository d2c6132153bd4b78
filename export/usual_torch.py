"""Torch as it is when nobody has changed it, while a model is exported and compared."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def usual_torch() -> Iterator[None]:
    """Without the caller's own default type and device and without autocast; also to decorate a function with."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_default_dtype(kept)
