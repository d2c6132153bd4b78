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
def choose(monkeypatch):
    """A function that forces the tiled kernels, or with True the resident one."""
    from tests.kernels.triton_attention import force

    return functools.partial(force, monkeypatch)
