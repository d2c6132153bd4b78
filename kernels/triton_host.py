"""What every Triton launcher asks of its machine. Importing this needs neither Triton nor a driver."""

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Every kernel has been compiled for these, with its registers and shared memory looked at; only there is it taken
# without being asked for.
COMPILED = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx90a", "gfx942")
_INSTALLED = importlib.util.find_spec("triton") is not None


def why_no_triton(tensor: Tensor, name: str) -> str | None:
    """The reason why no Triton kernel can take this tensor, called `name` by the caller, or None."""
    if not _INSTALLED:
        return "triton is not installed"
    if tensor.dtype not in DTYPES:
        return f"{tensor.dtype} is not one of float16, bfloat16 and float32"
    interpreted = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")
    if tensor.device.type != "cuda" and not interpreted:
        return f"{name} is on {tensor.device.type}, not on a CUDA or ROCm device"
    if tensor.requires_grad and torch.is_grad_enabled():
        return f"it has no backward, and {name} requires a gradient"
    return None


def architecture(device: torch.device) -> str | None:
    """A GPU's architecture as compilers name it, such as `sm_90` or `gfx942`; None for what is no GPU of this process.

    A trace on fake tensors may name a GPU that is not there; a real tensor on one has initialised CUDA.
    """
    if device.type != "cuda" or not torch.cuda.is_initialized():
        return None
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:
        return properties.gcnArchName.split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def is_compiled_for(device: torch.device) -> bool:
    """Whether this is a GPU of an architecture that the kernels have been compiled for."""
    return architecture(device) in COMPILED


def on_device(device: torch.device) -> Any:
    """Triton launches on the current device, so make it that of the tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else torch.device(device)
