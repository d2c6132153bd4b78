"""CUDA graphs of the image forward: recorded once for each shape, type and method, then replayed in one launch.

At batch 1 the host needs longer to launch the forward's kernels than the GPU to run them. `docs/backends.md` tells why
these and not those of `torch.compile`.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gem_fast.kernels.attention.triton.tiles import tf32_is_allowed
from gem_fast.kernels.backends import VARIABLE

from .errors import ModelError
from .towers.vit import GemVisionTransformer, VisionFeatures

MOST = 8  # graphs of a model, each with memory for its largest tensors


class Recorder(Protocol):
    """What records and replays on a device."""

    def turn(self, device: torch.device) -> AbstractContextManager[None]:
        """A context in which the buffers of all graphs are this thread's, after what others have queued on them."""

    def settle(self) -> None:
        """Wait until nothing that was queued reads or writes them."""

    def record(self, call: Callable[[], VisionFeatures], alone: bool) -> tuple[Callable[[], None], VisionFeatures]:
        """A function that computes again what `call` does, on the same memory, and where the results then lie.

        `alone` is whether there is no other graph, whose memory it could share.
        """


class CudaRecorder:
    """Graphs of CUDA, on one stream of their own and in one pool of memory, as no two ever run at a time."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None
        self._left: torch.cuda.Event | None = None

    @contextmanager
    def turn(self, device: torch.device) -> Iterator[None]:
        require_cuda(device)
        with torch.cuda.device(device):
            if torch.cuda.is_current_stream_capturing():
                raise ModelError("graph=True can't run while another CUDA graph is captured: load without it")
            current = torch.cuda.current_stream()
            if self._left is not None:
                current.wait_event(self._left)
            try:
                yield
            finally:
                self._left = current.record_event()

    def settle(self) -> None:
        if self._left is not None:
            self._left.synchronize()

    def record(self, call: Callable[[], VisionFeatures], alone: bool) -> tuple[Callable[[], None], VisionFeatures]:
        current = torch.cuda.current_stream()
        if self._stream is None or self._stream.device != current.device:
            self._stream = torch.cuda.Stream()
        if alone:  # a pool that all graphs have left is not to be taken again
            self._pool = torch.cuda.graph_pool_handle()
        stream = self._stream
        stream.wait_stream(current)
        with torch.cuda.stream(stream):  # kernels are compiled and workspaces made before anything is recorded
            for _ in range(2):
                call()
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # What other threads do meanwhile, such as allocating, is no part of it and stops nothing.
        with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
            results = call()
        return graph.replay, results


def require_cuda(device: torch.device) -> None:
    """Raise ModelError where no graphs can be recorded."""
    if device.type != "cuda":
        raise ModelError(f"graph=True takes a CUDA device, and the model is on {device}: leave it out, or name one")


@dataclass(frozen=True)
class _Graph:
    """A recorded forward: where its pixels go, how it runs again, where its results lie, and the positions it reads."""

    pixels: Tensor
    replay: Callable[[], None]
    results: VisionFeatures
    positions: Tensor


class GraphedForward:
    """The forward of a `GemVisionTransformer` by graphs, of which the least recently used go first; for many threads.

    Pickles and copies of it hold no graphs yet. Moving or casting the model forgets them; other weights that are
    written into the same memory are theirs too.
    """

    def __init__(self, recorder: Recorder | None = None, most: int = MOST) -> None:
        self._recorder: Recorder = recorder or CudaRecorder()
        self._most = most
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._weights: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphedForward, ()

    @torch.inference_mode()
    def __call__(self, vision: GemVisionTransformer, pixels: Tensor, original: bool = False) -> VisionFeatures:
        """What `vision(pixels, original)` returns, in memory of its own; pixels may lie on any device.

        Raises:
            ModelError: the model is not on a CUDA device.
            ValueError: the pixels do not fit the model.
        """
        vision.grid(pixels)
        asked = (vision.method, vision.backend, os.environ.get(VARIABLE), tf32_is_allowed(), original)
        key = (pixels.shape, pixels.dtype, *asked)
        with self._lock, self._recorder.turn(vision.position_embedding.device):
            self._forget_others(vision.weights_in_use)
            graph = self._graphs.get(key)
            if graph is None:
                self._make_room()
                graph = self._graphs[key] = self._recorded(vision, pixels, original)
            self._graphs.move_to_end(key)
            graph.pixels.copy_(pixels)
            graph.replay()
            copies = [None if each is None else each.clone() for each in graph.results]
        return VisionFeatures(*copies)  # type: ignore[arg-type]

    def _forget_others(self, weights: tuple[int, int]) -> None:
        """Graphs read the weights where they lay when they were recorded."""
        if weights != self._weights:
            self._recorder.settle()
            self._graphs.clear()
            self._weights = weights

    def _make_room(self) -> None:
        if len(self._graphs) >= self._most:
            self._recorder.settle()
            self._graphs.popitem(last=False)

    def _recorded(self, vision: GemVisionTransformer, pixels: Tensor, original: bool) -> _Graph:
        buffer = torch.zeros_like(
            pixels, device=vision.position_embedding.device, memory_format=torch.contiguous_format
        )
        positions = vision.positions(*vision.grid(pixels))  # kept with the graph, which reads them
        replay, results = self._recorder.record(lambda: vision(buffer, original), alone=not self._graphs)
        if vision.positions(*vision.grid(pixels)) is not positions:  # others took their place meanwhile
            return self._recorded(vision, pixels, original)
        return _Graph(buffer, replay, results, positions)
