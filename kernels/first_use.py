"""Whether Triton's kernels are right on this GPU: each operation is held against plain torch at its first use there.

Once for each type, and for TF32, on a kind of GPU, with its driver, its version of Triton and these kernels; what was
found lies in a file beside the tiles. One that is wrong or fails is warned of, and plain torch serves in its place.
What is asked for by name is taken as it is.
"""

import contextlib
import functools
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from .triton_host import constant, tf32_is_allowed
from .user_cache import user_file

if TYPE_CHECKING:
    from .backends import Backend, Operation

ALLOWANCE = 2.0  # times plain torch's own error in the type
FLOOR = 1e-5  # a relative error that is never too large, and a share of labels that may be another's
_DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/sys/module/amdgpu/version"))
_LOCK = threading.RLock()
_REAL: tuple[type, ...] = (Tensor, torch.nn.Parameter)
Kind: TypeAlias = torch.dtype | str  # of arithmetic: a type, or "tf32"
_found: dict[tuple[str, Kind, int], str] = {}  # what is wrong, or ""


def confirmed(operation: "Operation", row: "Backend", tensor: Tensor) -> bool:
    """Whether a backend may be taken for a tensor, after its first use is held against plain torch.

    While a graph is traced or captured nothing can be run beside it: then it is taken unless it is known to be wrong.
    """
    if tensor.device.type != "cuda":
        return True
    if torch.compiler.is_compiling():
        return not_known_wrong(operation, row, tensor)
    index = torch.cuda.current_device() if tensor.device.index is None else tensor.device.index
    reason = _found.get((operation.name, _kind(row, tensor.dtype), index))
    if reason is None:
        reason = _first_use(operation, row, tensor, index)
    return not reason


def not_known_wrong(operation: "Operation", row: "Backend", tensor: Tensor) -> bool:
    """Whether nothing wrong was found of it so far; nothing is run."""
    if tensor.device.type != "cuda":
        return True
    return not _known_wrong(operation.name, _kind(row, tensor.dtype), tensor.device.index or 0)


def _kind(row: "Backend", dtype: torch.dtype) -> Kind:
    return "tf32" if row.multiplies and dtype == torch.float32 and tf32_is_allowed() else dtype


@constant
def _known_wrong(name: str, kind: Kind, index: int) -> bool:
    known = _found.get((name, kind, index))
    return bool(Records(index).verdicts.get(_key(name, kind)) if known is None else known)


def _first_use(operation: "Operation", row: "Backend", tensor: Tensor, index: int) -> str:
    key = (operation.name, _kind(row, tensor.dtype), index)
    with _LOCK:
        if key in _found:  # by another thread
            return _found[key]
        if type(tensor) not in _REAL:  # a fake one, of a trace
            return ""
        records = Records(index)
        reason = records.verdicts.get(_key(*key[:2]))
        if reason is None:
            if torch.cuda.is_current_stream_capturing():
                return ""
            try:
                reason = why_wrong(operation, row, tensor.dtype, tensor.device)
            except torch.OutOfMemoryError:  # says nothing of the kernel
                return ""
            records.add(_key(*key[:2]), reason)
        if reason:
            warnings.warn(
                f"Triton's {operation.name} in {_name(key[1])} is not used on {records.device}: {reason}. "
                f"Plain torch serves in its place; remove {records.path} to have it tried again.",
                RuntimeWarning,
                stacklevel=4,
            )
        _found[key] = reason
        return reason


def why_wrong(operation: "Operation", row: "Backend", dtype: torch.dtype, device: torch.device) -> str:
    """What is wrong with a backend's results on its trials, or "".

    Raises:
        torch.OutOfMemoryError: there is no room for the trials.
    """
    plain = next(each for each in operation.backends if each.name == "sdpa")
    assert row.trials is not None
    kind = _kind(row, dtype)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for arguments in row.trials(dtype, device):
            if row.why_not(*arguments) or not row.pays(*arguments):
                continue
            try:
                ours = row.run(*_mapped(arguments, torch.clone))
                exact = operation.backends[-1].run(*_mapped(arguments, Tensor.double))
                allowed = plain.run(*_mapped(arguments, lambda each: as_plain(each.clone(), kind)))
                outputs = zip(*map(operation.outputs, (ours, allowed, exact)), strict=True)
                off = [why for output in outputs if (why := _why_off(*output))]
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a kernel may fail in the compiler or on the device, in many ways
                return f"it fails: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
            if off:
                return off[0]
    return ""


def _why_off(ours: Tensor, plain: Tensor, exact: Tensor) -> str:
    if ours.shape != exact.shape:
        return f"it is wrong: a result is {list(ours.shape)} and not {list(exact.shape)}"
    error, allowed = distance(ours, exact), max(ALLOWANCE * distance(plain, exact), FLOOR)
    return "" if error <= allowed else f"it is wrong: off by {error:.1e}, and {allowed:.1e} is allowed"


def as_plain(tensor: Tensor, kind: Kind) -> Tensor:
    """What plain torch computes with to tell what is allowed: for TF32 float16, whose mantissa it has, since torch may
    take small products exactly."""
    return tensor.half() if kind == "tf32" else tensor


def distance(found: Tensor, exact: Tensor) -> float:
    """Relative error in the norm; of integers the share that differs."""
    if not found.is_floating_point():
        return (found != exact).double().mean().item()
    return ((found.double() - exact).norm() / exact.norm()).item()


def random_tensors(dtype: torch.dtype, device: torch.device, *shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Normally distributed tensors for trials, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)


def _mapped(value: Any, change: Any) -> Any:
    """Arguments with their floating tensors changed."""
    if isinstance(value, tuple):
        return tuple(_mapped(each, change) for each in value)
    return change(value) if isinstance(value, Tensor) and value.is_floating_point() else value


class Records:
    """What was found on a kind of GPU, in the user's file; nothing where there is none that can be read.

    Attributes:
        device: the GPU's name.
        path: of the file, or None without a home folder.
        verdicts: what is wrong, or "", by operation and type.
    """

    def __init__(self, index: int) -> None:
        import triton

        self.device = torch.cuda.get_device_properties(index).name
        self.path: Path | None = None
        self.verdicts: dict[str, str] = {}
        self.of = {
            "gem_fast_first_use": 1, "device": self.device, "driver": _driver(), "triton": triton.__version__,
            "kernels": _kernels(),
        }  # fmt: skip
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self.path = user_file("first-use", self.device, triton.__version__)
            content = json.loads(self.path.read_bytes())
            if isinstance(content, dict) and {name: content.get(name) for name in self.of} == self.of:
                found = content.get("verdicts")
                self.verdicts = {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    def add(self, key: str, reason: str) -> None:
        """Keep a verdict; where the file can't be written, this process alone knows it."""
        self.verdicts[key] = reason
        if self.path is None:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            whole.write_text(json.dumps(self.of | {"verdicts": self.verdicts}, indent=1) + "\n")
            whole.replace(self.path)


@functools.cache
def _driver() -> str:
    for path in _DRIVERS:
        with contextlib.suppress(OSError):
            return path.read_text().splitlines()[0]
    return ""


@functools.cache
def _kernels() -> str:
    """What changes whenever a file of these kernels does."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _key(name: str, kind: Kind) -> str:
    return f"{name} {_name(kind)}"


def _name(kind: Kind) -> str:
    return str(kind).removeprefix("torch.")


def forget() -> None:
    """Look into the files again at the next use."""
    _found.clear()


def describe(index: int) -> Iterator[str]:
    """What is known of a GPU, in lines."""
    records = Records(index)
    right = [key for key, reason in records.verdicts.items() if not reason]
    yield f"{len(right)} kinds of calls found right at their first use, {records.path}" if right else "none used yet"
    yield from (f"{key}: {reason}" for key, reason in records.verdicts.items() if reason)
