"""The process of one provider: it loads once, then answers forwards over a pipe with features, seconds and memory.

Torch is imported only by providers that compute with it: memory figures hold nothing else.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from . import memory
from .protocol import serve_parent
from .providers import Loaded, Provider, Subject, load


class Worker:
    """State of the process: the loaded provider, and whether it was given pixels."""

    def __init__(self, make: Callable[..., Loaded] = load) -> None:
        self.make = make
        self.device = "cpu"
        self.loaded: Loaded | None = None
        self.has_pixels = False

    def load(self, message: dict[str, Any], _: np.ndarray | None) -> tuple[dict[str, Any], None]:
        """Build the provider; its weights stay resident."""
        self.device = message["device"]
        provider, subject = Provider(**message["provider"]), Subject(**message["subject"])
        self.loaded = self.make(provider, subject, self.device, message["threads"])
        if provider.kind != "compiled":  # that would be a compilation for this size
            side = 4 * subject.patch_size
            self.loaded.take(np.zeros((1, 3, side, side), np.float32))
            self.loaded.run()  # what a first forward sets up belongs to the loading
        memory.release_unused()
        return {"threads": self.loaded.threads, "resting_mb": self.loaded.memory_now()}, None

    def forward(self, message: dict[str, Any], array: np.ndarray | None) -> tuple[dict[str, Any], np.ndarray | None]:
        """Run `calls` forwards of the pixels that come along, or came before; `answer` asks for the features."""
        if self.loaded is None or not (self.has_pixels or array is not None):
            raise ValueError("a forward needs a provider that is loaded, and pixels")
        if array is not None:
            self.has_pixels = True
            self.loaded.take(array)
        self.loaded.start_peak()
        seconds = []
        for _ in range(message["calls"]):
            start = time.perf_counter()
            self.loaded.run()
            seconds.append(time.perf_counter() - start)
        reply = {"seconds": seconds, "peak_mb": self.loaded.peak()}
        return reply, self.loaded.features() if message["answer"] else None

    def ceiling(self, message: dict[str, Any], _: np.ndarray | None) -> tuple[dict[str, Any], None]:
        """What this machine reaches in a large matrix product of a type, and in a copy."""
        from .ceiling import ceiling

        return {**ceiling(message["dtype"], self.device)}, None


def main(make: Callable[..., Loaded] = load) -> None:
    """Entry of the process."""
    worker = Worker(make)
    serve_parent({"load": worker.load, "forward": worker.forward, "ceiling": worker.ceiling})


if __name__ == "__main__":
    main()
