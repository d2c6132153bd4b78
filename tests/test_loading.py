"""What `load` says of a machine without native kernels."""

import warnings

import pytest

import gem_fast
from gem_fast import loading


@pytest.fixture
def missing(monkeypatch):
    """An installation without a C++ compiler, in a process that has not been told."""
    monkeypatch.setattr(loading, "why_missing", lambda: "its native library was not built")
    monkeypatch.setattr(loading.sys, "platform", "linux")
    monkeypatch.setattr(loading.platform, "machine", lambda: "x86_64")
    monkeypatch.delenv("GEM_FAST_BACKEND", raising=False)
    loading.warn_of_plain_torch.cache_clear()
    yield monkeypatch
    loading.warn_of_plain_torch.cache_clear()


def warned(**arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gem_fast.load("gem-tiny", **arguments)
    return [each for each in caught if "native" in str(each.message)]


def test_missing_kernels_are_told_once(missing):
    (told,) = warned()
    assert "1.3 times as long" in str(told.message)
    assert "its native library was not built" in str(told.message)
    assert told.filename == __file__
    assert warned() == []


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_not_where_plain_torch_was_asked_for(missing, backend):
    assert warned(backend=backend) == []
    missing.setenv("GEM_FAST_BACKEND", backend)
    assert warned() == []


@pytest.mark.parametrize(("system", "machine"), [("darwin", "x86_64"), ("linux", "aarch64"), ("win32", "AMD64")])
def test_not_where_there_are_none_for_the_machine(missing, system, machine):
    missing.setattr(loading.sys, "platform", system)
    missing.setattr(loading.platform, "machine", lambda: machine)
    assert warned() == []


def test_not_where_they_are(missing):
    missing.setattr(loading, "why_missing", lambda: None)
    assert warned() == []
