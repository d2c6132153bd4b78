"""What starting and texts take: processes measured from outside, ratios by hand, and two text towers that agree."""

import subprocess
import sys

import pytest
import torch

from tools import prompts, starting

BASE = starting._BASE


_MEASURED = """
import sys
from tools.starting import started
print(*started((sys.executable, "-c", "import time; x = b'x' * (200 << 20); time.sleep(0.2)")))
"""


def test_a_process_is_measured_from_outside():
    """By one that is small itself, as the tool is."""
    told = subprocess.run([sys.executable, "-c", _MEASURED], capture_output=True, text=True, check=True).stdout
    seconds, memory = map(float, told.split())
    assert 0.2 < seconds < 20
    assert 200 < memory < 250


def test_a_command_that_fails_is_named():
    with pytest.raises(subprocess.CalledProcessError, match="status 3"):
        starting.started((sys.executable, "-c", "raise SystemExit(3)"))


def test_rows_are_medians_of_turns_against_torch():
    found = {BASE: [(1.0, 100.0), (2.0, 110.0), (1.0, 100.0)], "x": [(1.5, 150.0), (2.4, 130.0), (3.0, 130.0)]}
    assert starting.starting_rows(found) == [
        [f"`{BASE}`", "1.00", "1.00", "100", "+0"],
        ["`x`", "2.40", "1.50", "130", "+30"],
    ]


def test_the_commands_are_those_of_the_package(tmp_path):
    asked = starting.commands(str(tmp_path))
    assert next(iter(asked)) == BASE
    assert subprocess.run([*asked["gem-fast --help"]], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_text_towers_agree(monkeypatch, dtype):
    """open_clip's without padding, and the engine's."""
    monkeypatch.setattr(prompts, "_MODEL", "ViT-S-32-alt")
    monkeypatch.setattr(prompts, "_TEXTS", 3)
    with torch.inference_mode():
        both, length = prompts.encoders(dtype)
        ours, theirs = (way() for way in both.values())
    assert length == 12
    assert ours.shape == theirs.shape == (3, 256)
    assert (ours - theirs).norm() / theirs.norm() < prompts._LARGEST[dtype]
