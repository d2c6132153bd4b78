"""The host's time of Triton's launches, on a GPU that is not there."""

import os

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("kernels that are interpreted have no binder", allow_module_level=True)

from tools import host_time  # noqa: E402 - without Triton it can't be imported


def test_each_call_goes_through_the_real_launchers():
    with host_time.no_gpu(), torch.inference_mode():
        found = {name: host_time.host_time(call, loops=1, rounds=1) for name, call in host_time.calls().items()}
    launches = [each.launches for each in found.values()]
    assert launches == [1, 1, 1, 3, 2, 1, 1, 1, 1, 1]
    for name, each in found.items():
        assert each.triton > 0, name
        assert each.row(name)[:2] == [name, str(each.launches)]


def test_nothing_is_left_behind():
    empty, driver = torch.empty, vars(triton.runtime.driver).copy()
    with host_time.no_gpu():
        assert torch.cuda.is_initialized()
    assert torch.empty is empty
    assert vars(triton.runtime.driver) == driver
    assert not torch.cuda.is_initialized()
    assert not host_time.first_use._found
