"""What every Triton launcher asks of its machine. Importing this needs neither Triton nor a driver."""

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def why_no_triton(tensor: Tensor, name: str) -> str | None:
    """The reason why no Triton kernel can take this tensor, called `name` by the caller, or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if tensor.dtype not in DTYPES:
        return f"{tensor.dtype} is not one of float16, bfloat16 and float32"
    interpreted = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")
    if tensor.device.type != "cuda" and not interpreted:
        return f"{name} is on {tensor.device.type}, not on a CUDA or ROCm device"
    return None


def on_device(device: torch.device) -> Any:
    """Triton launches on the current device, so make it that of the tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else torch.device(device)
