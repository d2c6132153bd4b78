"""What cases of the Triton attention run in."""

import functools

import pytest


@pytest.fixture
def surroundings(monkeypatch):
    """Memory that is full of NaN, and an interpreter that refuses what the compiler would."""
    from tests.kernels.triton_attention import poison_memory, refuse_unknown_arguments

    poison_memory(monkeypatch)
    refuse_unknown_arguments(monkeypatch)


@pytest.fixture
def nearest_bfloat16(monkeypatch):
    """Casts to bfloat16 as on a GPU, to nearest: the interpreter cuts."""
    import numpy as np
    import torch
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    plain_cast = InterpreterBuilder.cast_impl

    def cast(builder, source, dtype):
        if (source.dtype.scalar, dtype.scalar) == (tl.float32, tl.bfloat16):
            rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
            return TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)
        return plain_cast(builder, source, dtype)

    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast)


@pytest.fixture
def choose(monkeypatch):
    """A function that forces the tiled kernels, or with True the resident one."""
    from tests.kernels.triton_attention import force

    return functools.partial(force, monkeypatch)
