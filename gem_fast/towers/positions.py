"""Position embeddings for other grids than that of training: resampled once for each grid, and kept."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST = 16  # grids that are kept


def resampled(trained: Tensor, first: int, old: tuple[int, int], new: tuple[int, int], kind: str) -> Tensor:
    """Embeddings [first + h*w, C] of another grid; those before the first patch stay as they are.

    The kind is that of `VisionConfig.resampling`.
    """
    wide = torch.promote_types(trained.dtype, torch.float32)
    # MPS has no antialiased resampling in every torch that we support.
    place = torch.device("cpu") if trained.device.type == "mps" else trained.device
    image = trained[first:].to(place, wide).unflatten(0, old)
    rows, columns = (_weights(image.new_empty(n), m, kind) for n, m in zip(old, new, strict=True))
    patches = torch.einsum("hi,ijc,wj->hwc", rows, image, columns)
    return torch.cat([trained[:first], patches.flatten(0, 1).to(trained)])


def _weights(like: Tensor, length: int, kind: str) -> Tensor:
    """Weights [length, n] that resample an axis as long as `like` [n]."""
    # Only the last axis of the identity changes: torch resamples rows wrongly where an output is one column wide.
    identity = torch.eye(len(like), dtype=like.dtype, device=like.device)[None, None]
    mode = "bilinear" if kind == "bilinear" else "bicubic"
    return F.interpolate(identity, size=(len(like), length), mode=mode, antialias=kind != "plain")[0, 0].T


@dataclass(frozen=True)
class _Entry:
    """A table, and what it was made of: the embedding itself, how often it had been written, where it lay."""

    source: Tensor
    version: int
    place: tuple[torch.dtype, torch.device]
    table: Tensor

    def holds_for(self, trained: Tensor) -> bool:
        now = (written(trained), (trained.dtype, trained.device))
        return self.source is trained and (self.version, self.place) == now


class KeptPositions:
    """The tables of the last few grids, for several threads; its copies and pickles are empty, and no state has it."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[int, int], _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptPositions, ()

    def clear(self) -> None:
        """Forget all: the embedding has been moved, cast or replaced."""
        with self._lock:
            self._entries.clear()

    def table(self, trained: Tensor, first: int, old: tuple[int, int], new: tuple[int, int], kind: str) -> Tensor:
        """`resampled`, from memory where it was made before of this very embedding; not while a program is traced."""
        if torch.compiler.is_compiling() or (trained.requires_grad and torch.is_grad_enabled()):
            return resampled(trained, first, old, new, kind)
        with self._lock:
            entry = self._entries.get(new)
            if entry is not None and entry.holds_for(trained):
                self._entries.move_to_end(new)
                return _in_use(entry.table)
        # A tensor that any mode can take; and of whatever device, it is kept for calls without autocast too.
        with torch.inference_mode(False), torch.no_grad(), torch._C._DisableAutocast():
            table = resampled(trained, first, old, new, kind)
        if type(table) is not Tensor or not _settled(table):
            return table
        with self._lock:
            self._entries[new] = _Entry(trained, written(trained), (trained.dtype, trained.device), table)
            while len(self._entries) > _MOST:
                self._entries.popitem(last=False)
        return table


def written(trained: Tensor) -> int:
    """How often it was written to; tensors of inference mode don't count it, and can't be written outside of it."""
    return 0 if trained.is_inference() else trained._version


def _settled(table: Tensor) -> bool:
    """Whether other streams may read it: its kernels are waited for, which a graph that is being captured can't."""
    if table.device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            return False
        torch.cuda.current_stream(table.device).synchronize()
    return True


def _in_use(table: Tensor) -> Tensor:
    """The table, whose memory is not given to others before what this stream does with it is done."""
    if table.device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
        table.record_stream(torch.cuda.current_stream(table.device))
    return table
