"""CUDA graphs of the image forward: recorded once for each shape, type and method, then replayed in one launch.

At batch 1 the host needs longer to launch the forward's kernels than the GPU to run them. `docs/backends.md` tells why
these and not those of `torch.compile`.
"""

import math
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gem_fast.kernels.backends import VARIABLE
from gem_fast.kernels.triton_host import tf32_is_allowed

from .errors import ModelError
from .towers.vit import GemVisionTransformer, VisionFeatures

MOST = 8  # graphs of a model, each with memory for its largest tensors
# More tokens keep a GPU busy for longer than the host takes to launch what they need: replays of ViT-B/16 on an H100
# were 5.3 times as fast with 785, 1.9 times with 6,280, and as fast with 25,120 (`gem-fast bench --against graph`).
MOST_TOKENS = 16384
PATIENCE = 64  # times that a shape comes before it takes another's place: recording costs some twenty forwards
_REMEMBERED = 64  # shapes that are counted


class Recorder(Protocol):
    """What records and replays on a device."""

    def why_not(self, device: torch.device) -> str | None:
        """The reason why nothing can be recorded there now, or None."""

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

    def require(self, device: torch.device) -> None:
        """Raise ModelError where nothing can be recorded."""
        if reason := self.why_not(device):
            raise ModelError(f"graph=True: {reason}")

    def why_not(self, device: torch.device) -> str | None:
        if device.type != "cuda":
            return f"it takes a CUDA device, and the model is on {device}: leave it out, or name one"
        with torch.cuda.device(device):
            if torch.cuda.is_current_stream_capturing():
                return "it can't run while another CUDA graph is captured: load without it"
        return None

    @contextmanager
    def turn(self, device: torch.device) -> Iterator[None]:
        self.require(device)
        with torch.cuda.device(device):
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


def graphs_of(asked: bool | None, device: torch.device) -> "GraphedForward | None":
    """The graphs of a model on a device: those asked for, those that nobody asked for or forbade, or None.

    Raises:
        ModelError: they are asked for, and not on a CUDA device.
    """
    recorder = CudaRecorder()
    if asked:
        recorder.require(device)
        return GraphedForward(recorder)
    # Where they were found right: no GPU of AMD has run them.
    serve = asked is None and device.type == "cuda" and torch.version.hip is None
    return GraphedForward(recorder, unasked=True) if serve else None


@dataclass(frozen=True)
class _Graph:
    """A recorded forward: where its pixels go, how it runs again, where its results lie, and the positions it reads."""

    pixels: Tensor
    replay: Callable[[], None]
    results: VisionFeatures
    positions: Tensor


class _NotRecordedError(Exception):
    """Nothing was recorded, for the reason that is its cause."""


class GraphedForward:
    """The forward of a `GemVisionTransformer` by graphs, of which the least recently used go first; for many threads.

    Unasked, what comes for the first time is launched, and recorded when it comes again, or when that is often enough
    to take another's place. Large batches, models whose modules have hooks, and what can't be recorded are launched.
    Pickles and copies of it hold no graphs yet. Moving or casting the model forgets them, and so do weights elsewhere;
    others that are written into the same memory are theirs too.
    """

    def __init__(self, recorder: Recorder | None = None, most: int = MOST, unasked: bool = False) -> None:
        self._recorder: Recorder = recorder or CudaRecorder()
        self._most = most
        self._unasked = unasked
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._came: OrderedDict[Hashable, float] = OrderedDict()  # how often, of what is not recorded
        self._parts = _Parts()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphedForward, (None, self._most, self._unasked)

    @torch.inference_mode()
    def __call__(self, vision: GemVisionTransformer, pixels: Tensor, original: bool = False) -> VisionFeatures:
        """What `vision(pixels, original)` returns, in memory of its own; pixels may lie on any device.

        Raises:
            ModelError: graphs are asked for, and the model is not on a CUDA device.
            ValueError: the pixels do not fit the model.
        """
        h, w = vision.grid(pixels)
        device = vision.position_embedding.device
        asked = (vision.method, vision.backend, os.environ.get(VARIABLE), tf32_is_allowed(), original)
        key = (pixels.shape, pixels.dtype, *asked)
        if not self._unasked:
            return self._replayed(key, vision, pixels, original)
        small = len(pixels) * h * w <= MOST_TOKENS
        if small and self._recorder.why_not(device) is None and self._pays(key) and not self._parts.have_hooks(vision):
            try:
                return self._replayed(key, vision, pixels, original)
            except _NotRecordedError as error:
                self._came[key] = -math.inf
                if not isinstance(error.__cause__, torch.OutOfMemoryError):  # what needs none beside may still run
                    warnings.warn(f"{error}; it is launched kernel by kernel instead", RuntimeWarning, stacklevel=2)
        return vision(pixels.to(device), original)

    def _pays(self, key: Hashable) -> bool:
        """Whether it is recorded, or has come often enough to be."""
        with self._lock:
            if key in self._graphs:
                return True
            count = self._came.pop(key, 0)
            if count >= (1 if len(self._graphs) < self._most else PATIENCE):
                return True
            self._came[key] = count + 1
            if len(self._came) > _REMEMBERED:
                self._came.popitem(last=False)
            return False

    def _replayed(self, key: Hashable, vision: GemVisionTransformer, pixels: Tensor, original: bool) -> VisionFeatures:
        with self._lock, self._recorder.turn(vision.position_embedding.device):
            if self._parts.are_elsewhere(vision):  # graphs read them where they lay when they were recorded
                self._recorder.settle()
                self._graphs.clear()
            graph = self._graphs.get(key)
            if graph is None:
                self._make_room()
                try:
                    graph = self._graphs[key] = self._recorded(vision, pixels, original)
                except RuntimeError as error:
                    if not self._unasked:
                        raise
                    told = str(error).strip().split("\n")[0]
                    raise _NotRecordedError(f"the forward can't be recorded as a CUDA graph: {told}") from error
            self._graphs.move_to_end(key)
            graph.pixels.copy_(pixels)
            graph.replay()
            copies = [None if each is None else each.clone() for each in graph.results]
        return VisionFeatures(*copies)  # type: ignore[arg-type]

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


class _Parts:
    """A model's modules, and where its weights lay when they were last looked at; the modules are listed once."""

    def __init__(self) -> None:
        self._of: GemVisionTransformer | None = None
        self._modules: list[nn.Module] = []
        self._places: list[tuple[Mapping[str, Tensor | None], str]] = []
        self._found: Hashable = None

    def have_hooks(self, vision: GemVisionTransformer) -> bool:
        """Whether something looks on at its modules, which a replay would not call."""
        self._list(vision)
        return any(module._forward_hooks or module._forward_pre_hooks for module in self._modules)

    def are_elsewhere(self, vision: GemVisionTransformer) -> bool:
        """Whether the weights lie elsewhere, or are another model's, than at the last call; not at the first."""
        self._list(vision)
        lie = tuple(_address(members[name]) for members, name in self._places)
        before, self._found = self._found, (id(vision), vision.weights_in_use, lie)
        return before not in (None, self._found)

    def _list(self, vision: GemVisionTransformer) -> None:
        if vision is self._of:
            return
        self._modules = list(vision.modules())
        self._places = [
            (members, name)
            for module in self._modules
            for members in (module._parameters, module._buffers)
            for name, value in members.items()
            if value is not None
        ]
        self._of = vision


def _address(value: Tensor | None) -> int:
    return id(value) if value is None or value.is_mkldnn else value.data_ptr()  # that layout tells none
