"""What the first use on a GPU tries, on the kernels themselves; `test_triton.py` runs this file."""

from dataclasses import replace

import pytest
import torch
from gem_fast.kernels import first_use
from gem_fast.kernels.backends import OPERATIONS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROWS = {
    name: (each, replace(row, pays=lambda *_: True))
    for name, each in OPERATIONS.items()
    for row in each.backends
    if row.name == "triton"
}


def off(result):
    """The same with its last numbers doubled, as by a kernel that is wrong at an end."""
    if isinstance(result, tuple):
        return type(result)(*map(off, result)) if hasattr(result, "_fields") else tuple(map(off, result))
    if result is not None and result.is_floating_point():
        result = result.clone()
        result.view(-1)[-max(1, result.numel() // 50) :] *= 2
    return result


@pytest.mark.parametrize("name", ROWS)
def test_every_kernel_passes_and_one_that_is_off_does_not(name):
    operation, row = ROWS[name]
    assert row.trials is not None
    trials = list(row.trials(torch.float16, DEVICE))
    assert first_use.why_wrong(operation, row, torch.float16, DEVICE) == ""
    wrong = replace(row, run=lambda *arguments: off(row.run(*arguments)), trials=lambda *_: trials[-1:])
    assert "it is wrong" in first_use.why_wrong(operation, wrong, torch.float16, DEVICE)
