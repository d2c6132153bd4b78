"""Launches of a forward of ViT-B/16 on one image of 448² in bfloat16, on a GPU that is not there."""

import pytest
import torch

from tools.gpu_report import forward_launches

pytest.importorskip("triton")


@pytest.mark.skipif(
    torch.__version__ < (2, 10) and not torch.cuda.is_available(), reason="this torch's fake tensors ask for a driver"
)
@pytest.mark.parametrize(("activation", "own"), [("gelu", 0), ("quick_gelu", 11)])
def test_a_forward_takes_at_most_120_launches(activation, own):
    counts = forward_launches(activation)
    assert sum(counts.values()) <= 120
    assert counts["gem_fast::quick_gelu_triton"] == own
    assert counts["gem_fast::self_self_attention_triton"] == 3 * 6
    assert not any("convolution" in name for name in counts)
