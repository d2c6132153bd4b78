"""The process of one provider: it loads once, then answers forwards over a pipe with features, seconds and memory.

Torch is imported only by providers that compute with it: memory figures hold nothing else.
"""

import time
from collections.abc import Callable

import numpy as np

from . import memory
from .protocol import Message, serve_parent
from .providers import Loaded, Provider, Subject


def load(provider: Provider, subject: Subject, device: str, threads: int | None) -> Loaded:
    """The provider with its weights in memory, warmed up; None leaves the threads to its library."""
    loaded: Loaded
    if provider.kind == "onnx":
        from .onnx_provider import OnnxForward

        loaded = OnnxForward(provider, subject, device, threads)
    elif provider.kind == "openvino":
        from .openvino_provider import OpenVinoForward

        loaded = OpenVinoForward(provider, subject, device, threads)
    else:
        from .torch_provider import TorchForward, build

        loaded = TorchForward(lambda: build(provider, subject, device), device, threads)
    if provider.kind != "compiled":  # that would be a compilation for this size
        side = 4 * subject.patch_size
        loaded.take(np.zeros((1, 3, side, side), np.float32))
        loaded.run()  # what a first forward sets up belongs to the loading
    return loaded


class Worker:
    """State of the process: the loaded provider, and whether it was given pixels."""

    def __init__(self, make: Callable[..., Loaded] = load, clock: Callable[[], float] = time.perf_counter) -> None:
        self.make = make
        self.clock = clock
        self.device = "cpu"
        self.loaded: Loaded | None = None
        self.has_pixels = False

    def load(self, message: Message, _: np.ndarray | None) -> tuple[Message, None]:
        """Build the provider; its weights stay resident."""
        self.device = message["device"]
        provider, subject = Provider(**message["provider"]), Subject(**message["subject"])
        self.loaded = self.make(provider, subject, self.device, message["threads"])
        memory.release_unused()
        return {"threads": self.loaded.threads, "resting_mb": self.loaded.memory_now()}, None

    def forward(self, message: Message, array: np.ndarray | None) -> tuple[Message, np.ndarray | None]:
        """Run `calls` forwards of the pixels that come along, or came before; `answer` asks for the features."""
        if self.loaded is None or not (self.has_pixels or array is not None):
            raise ValueError("a forward needs a provider that is loaded, and pixels")
        if array is not None:
            self.has_pixels = True
            self.loaded.take(array)
        self.loaded.start_peak()
        seconds = []
        for _ in range(message["calls"]):
            start = self.clock()
            self.loaded.run()
            seconds.append(self.clock() - start)
        reply = {"seconds": seconds, "peak_mb": self.loaded.peak()}
        return reply, self.loaded.features() if message["answer"] else None

    def ceiling(self, message: Message, _: np.ndarray | None) -> tuple[Message, None]:
        """What this machine reaches in a large matrix product of a type, and in a copy."""
        from .ceiling import ceiling

        return {**ceiling(message["dtype"], self.device)}, None


def main(make: Callable[..., Loaded] = load, clock: Callable[[], float] = time.perf_counter) -> None:
    """Entry of the process."""
    worker = Worker(make, clock)
    serve_parent({"load": worker.load, "forward": worker.forward, "ceiling": worker.ceiling})


if __name__ == "__main__":
    main()
